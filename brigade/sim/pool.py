"""KV room of one simulated worker, over the ledger that runs live.

`PromisePool` is for workloads in which no two requests share a prefix: nothing can ever match, so a promise of blocks
says all that choosing them would, in constant time. `BlockPool` takes, registers, lends and evicts real blocks. Both leave
`num_available` and the number of lent blocks the same (tests/sim holds them together).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from brigade.core.ledger import BlockLedger, Reservation
from brigade.sim.request import SimRequest


class Hold:
    """Room that one request has in one pool: `rest` is promised for its answer, where there is a promise."""

    __slots__ = ("blocks", "is_lent", "main", "num_blocks", "pool", "rest")

    def __init__(self, pool: Pool, num_blocks: int) -> None:
        self.pool = pool
        self.num_blocks = num_blocks
        self.main: Reservation | None = None
        self.blocks: list[int] = []
        self.rest: Reservation | None = None
        self.is_lent = False


class Pool(Protocol):
    """What a simulated worker asks of its pool. Block counts are of whole sequences, cached blocks included."""

    ledger: BlockLedger

    @property
    def num_lent(self) -> int: ...

    def can_admit(self, request: SimRequest, num_blocks: int, num_tokens: int) -> bool:
        """Whether `num_blocks` fit, the cached part of the first `num_tokens` tokens being there already."""

    def begin(self, request: SimRequest, num_blocks: int, num_rest: int | None) -> tuple[Hold, int]:
        """Take room for a prefill and, where it is decoded here too, `num_rest` blocks for its answer; return it and the
        tokens found cached."""

    def admit(self, request: SimRequest, num_blocks: int) -> tuple[Hold, int]:
        """Take room for a whole decode; return it and the tokens whose KV is here already."""

    def fill(self, request: SimRequest, hold: Hold, first_token: int, end_token: int) -> None:
        """Say that the KV of these tokens is computed: later requests may share it."""

    def lend(self, request: SimRequest, hold: Hold) -> None: ...

    def take_over(self, request: SimRequest, hold: Hold, num_blocks: int) -> None:
        """The lender decodes it itself, and needs `num_blocks` in all; ask `can_take_over` first."""

    def can_take_over(self, hold: Hold, num_blocks: int) -> bool: ...

    def release(self, request: SimRequest, hold: Hold) -> None:
        """Give everything up, whether lent or not."""

    def can_share_soon(self, request: SimRequest) -> bool:
        """Whether a block that `request` could share is just being computed."""


def drop_rest(hold: Hold) -> None:
    """Give up the room for the answer: it is decoded elsewhere."""
    if hold.rest is not None:
        hold.rest.cancel()
        hold.rest = None


class PromisePool:
    """Counts only."""

    def __init__(self, num_blocks: int, block_size_tokens: int) -> None:
        self.ledger = BlockLedger(num_blocks, block_size_tokens)
        self.num_lent = 0

    def can_admit(self, request: SimRequest, num_blocks: int, num_tokens: int) -> bool:
        return num_blocks <= self.ledger.num_available

    def begin(self, request: SimRequest, num_blocks: int, num_rest: int | None) -> tuple[Hold, int]:
        hold = Hold(self, num_blocks)
        hold.main = self.ledger.reserve(num_blocks)
        if num_rest is not None:
            hold.rest = self.ledger.reserve(num_rest)
        return hold, 0

    def admit(self, request: SimRequest, num_blocks: int) -> tuple[Hold, int]:
        hold = Hold(self, num_blocks)
        hold.main = self.ledger.reserve(num_blocks)
        return hold, 0

    def fill(self, request: SimRequest, hold: Hold, first_token: int, end_token: int) -> None:
        return

    def lend(self, request: SimRequest, hold: Hold) -> None:
        hold.is_lent = True
        self.num_lent += hold.num_blocks

    def can_take_over(self, hold: Hold, num_blocks: int) -> bool:
        return hold.rest is not None or num_blocks - hold.num_blocks <= self.ledger.num_available

    def take_over(self, request: SimRequest, hold: Hold, num_blocks: int) -> None:
        self._end_loan(hold)
        if hold.rest is None:
            hold.rest = self.ledger.reserve(num_blocks - hold.num_blocks)

    def release(self, request: SimRequest, hold: Hold) -> None:
        self._end_loan(hold)
        assert hold.main is not None, "released twice"
        hold.main.cancel()
        hold.main = None
        drop_rest(hold)

    def can_share_soon(self, request: SimRequest) -> bool:
        return False

    def _end_loan(self, hold: Hold) -> None:
        if hold.is_lent:
            hold.is_lent = False
            self.num_lent -= hold.num_blocks


class BlockPool:
    """Real blocks and a prefix cache. Blocks of an answer are taken when its decode is admitted, not as it grows: what is
    available is the same, what is evicted goes a little earlier than live."""

    def __init__(self, num_blocks: int, block_size_tokens: int, prefix_block_tokens: int) -> None:
        self.ledger = BlockLedger(num_blocks, block_size_tokens)
        self._size = block_size_tokens
        self._prefix_block_tokens = prefix_block_tokens
        self._computing: dict[bytes, int] = {}  # hash → index of the request that computes it

    @property
    def num_lent(self) -> int:
        return self.ledger.num_lent

    def can_admit(self, request: SimRequest, num_blocks: int, num_tokens: int) -> bool:
        return self.ledger.can_admit(num_blocks, self._hashes(request, num_tokens))

    def begin(self, request: SimRequest, num_blocks: int, num_rest: int | None) -> tuple[Hold, int]:
        num_tokens = request.isl + request.num_out
        blocks, promise = self.ledger.admit(num_blocks, self._hashes(request, num_tokens - 1))
        hold = Hold(self, num_blocks)
        num_cached = len(blocks)
        hold.blocks = blocks + promise.draw(num_blocks - num_cached)
        if num_rest is not None:
            hold.rest = self.ledger.reserve(num_rest)
        for block_hash in self._hashes(request, num_tokens)[num_cached:]:
            self._computing.setdefault(block_hash, request.index)
        return hold, num_cached * self._size

    def admit(self, request: SimRequest, num_blocks: int) -> tuple[Hold, int]:
        hashes = self._hashes(request, request.isl + request.num_out - 1)
        cached, promise = self.ledger.admit(num_blocks, hashes)
        hold = Hold(self, num_blocks)
        hold.blocks = cached + promise.draw(num_blocks - len(cached))
        return hold, len(cached) * self._size

    def fill(self, request: SimRequest, hold: Hold, first_token: int, end_token: int) -> None:
        size = self._size
        first, end = first_token // size, end_token // size
        for index, block_hash in enumerate(self._hashes(request, end_token)[first:end], start=first):
            self.ledger.register(hold.blocks[index], block_hash)
            self._computing.pop(block_hash, None)

    def lend(self, request: SimRequest, hold: Hold) -> None:
        hold.is_lent = True
        self.ledger.lend((request.request_id, request.attempt), hold.blocks)

    def can_take_over(self, hold: Hold, num_blocks: int) -> bool:
        return hold.rest is not None or self.ledger.can_allocate(num_blocks - hold.num_blocks)

    def take_over(self, request: SimRequest, hold: Hold, num_blocks: int) -> None:
        hold.blocks = self.ledger.take_over((request.request_id, request.attempt))
        hold.is_lent = False
        rest = hold.rest or self.ledger.reserve(num_blocks - hold.num_blocks)
        hold.rest = None
        hold.blocks += rest.draw(rest.num_blocks)

    def release(self, request: SimRequest, hold: Hold) -> None:
        if hold.is_lent:
            self.ledger.end_loan((request.request_id, request.attempt))
        else:
            self.ledger.release(hold.blocks)
        hold.blocks, hold.is_lent = [], False
        drop_rest(hold)
        if request.num_left:  # given up while it was being computed
            for block_hash in self._hashes(request, request.isl + request.num_out):
                if self._computing.get(block_hash) == request.index:
                    del self._computing[block_hash]

    def can_share_soon(self, request: SimRequest) -> bool:
        hashes = self._hashes(request, request.isl + request.num_out - 1)
        num_hits = self.ledger.peek(hashes)
        return num_hits < len(hashes) and hashes[num_hits] in self._computing

    def _hashes(self, request: SimRequest, num_tokens: int) -> Sequence[bytes]:
        """Name the full blocks of the first `num_tokens` tokens: by the prefix id that covers a block's end, else by the
        request, since nobody shares the rest of it."""
        size, per_id, ids = self._size, self._prefix_block_tokens, request.work.prefix_ids
        hashes = []
        num_shared = min(len(ids) * per_id, request.isl) // size
        for index in range(num_tokens // size):
            if index < num_shared:
                name, kind = ids[((index + 1) * size - 1) // per_id], b"p"
            else:
                name, kind = request.index, b"r"
            hashes.append(b"%b%d/%d" % (kind, name, index))
        return hashes
