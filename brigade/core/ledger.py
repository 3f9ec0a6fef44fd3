"""Who holds which KV block: references, promises, loans and the prefix cache of one pool. No bytes, no clock, no torch.

A block is in exactly one place:

    free ──allocate──▶ referenced ──last release, not registered──▶ free
      ▲                  ▲   │
      │ evicted when     │   └─last release, registered──▶ cached (evictable, least recently released first)
      │ nothing is free  └───────────────match─────────────────┘
      └─────────────────────────────────────────────────────────┘

Each reference belongs to somebody: a sequence (the caller keeps the list of its blocks) or a loan (kept here). A
block's generation is raised before it is given out for new content, so a reader that finds the generation of its
handle unchanged after copying has read what was lent. A reservation promises blocks without choosing them: drawing
from it cannot fail, because nothing else may take the last `num_reserved` unreferenced blocks.

Not safe for several threads; one thread owns a pool.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from brigade.core.errors import KVGone, OutOfBlocks

LoanKey = tuple[str, int]
"""(request id, with its branch where there are several; attempt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCounts:
    """One look at a ledger. free + cached + referenced = blocks; reserved counts within free + cached."""

    num_blocks: int
    num_free: int  # unreferenced and not cached
    num_cached: int  # unreferenced, evictable, still found by its hash
    num_referenced: int
    num_reserved: int  # promised, not yet drawn
    num_lent: int  # distinct blocks under at least one loan; referenced too
    num_evictions: int  # since the start


class Reservation:
    """A promise of `num_blocks` more blocks. Ends drawn empty or cancelled."""

    __slots__ = ("_ledger", "num_blocks")

    def __init__(self, ledger: BlockLedger, num_blocks: int) -> None:
        self._ledger = ledger
        self.num_blocks = num_blocks

    def draw(self, num_blocks: int = 1) -> list[int]:
        """Blocks of the promise, one reference each. Never fails; asking for more than was promised is a bug."""
        assert 0 <= num_blocks <= self.num_blocks, f"{num_blocks} blocks drawn from a promise of {self.num_blocks}"
        self.num_blocks -= num_blocks
        return self._ledger._draw(num_blocks)

    def cancel(self) -> None:
        """Give back what was not drawn; drawn blocks are released as any others. Doing it twice is harmless."""
        self._ledger._unreserve(self.num_blocks)
        self.num_blocks = 0


class BlockLedger:
    """Accounts for `num_blocks` blocks of `block_size_tokens` tokens each.

    `on_generation(block, generation)` is called before the block is handed out, so that an exported pool can show the
    new generation to readers before the first new byte is written.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size_tokens: int,
        on_generation: Callable[[int, int], object] | None = None,
    ) -> None:
        assert num_blocks > 0
        assert block_size_tokens > 0
        self.num_blocks = num_blocks
        self.block_size_tokens = block_size_tokens
        self._on_generation = on_generation
        self._free = list(range(num_blocks - 1, -1, -1))  # popped from the end: low blocks first, in runs
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._num_references = [0] * num_blocks
        self._num_loans = [0] * num_blocks
        self._generation = [0] * num_blocks
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        self._loans: dict[LoanKey, tuple[int, ...]] = {}
        self._num_reserved = 0
        self._num_lent = 0
        self._num_evictions = 0

    # What there is

    @property
    def num_free(self) -> int:
        """Blocks that nobody references, cached ones included; a part of them may be promised."""
        return len(self._free) + len(self._evictable)

    @property
    def num_available(self) -> int:
        """Blocks that may be allocated or reserved now: unreferenced and not promised."""
        return len(self._free) + len(self._evictable) - self._num_reserved

    @property
    def num_lent(self) -> int:
        """Distinct blocks under at least one loan."""
        return self._num_lent

    @property
    def is_idle(self) -> bool:
        """Whether everything balances to zero: no reference, no promise, no loan. Cached blocks do not count."""
        return self.num_free == self.num_blocks and not self._num_reserved and not self._loans

    def counts(self) -> LedgerCounts:
        return LedgerCounts(
            num_blocks=self.num_blocks,
            num_free=len(self._free),
            num_cached=len(self._evictable),
            num_referenced=self.num_blocks - self.num_free,
            num_reserved=self._num_reserved,
            num_lent=self._num_lent,
            num_evictions=self._num_evictions,
        )

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size_tokens)

    def generation(self, block: int) -> int:
        return self._generation[block]

    def num_references(self, block: int) -> int:
        return self._num_references[block]

    # Blocks of sequences

    def can_allocate(self, num_blocks: int) -> bool:
        return num_blocks <= self.num_available

    def allocate(self, num_blocks: int) -> list[int]:
        """Blocks with one reference each and a new generation. OutOfBlocks, with nothing taken, if there is no room."""
        if num_blocks > self.num_available:
            raise OutOfBlocks(f"{num_blocks} KV blocks asked for, {self.num_available} of {self.num_blocks} available")
        return self._take(num_blocks)

    def retain(self, blocks: Iterable[int]) -> None:
        """One more reference on each block of a live sequence: for branches that share it."""
        for block in blocks:
            assert self._num_references[block] > 0, f"block {block} is retained but nobody holds it"
            self._num_references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one reference on each. Cached blocks stay findable until their room is needed.

        Goes from the last to the first, so that the end of a sequence is evicted before the beginning it depends on.
        """
        references, hash_of = self._num_references, self._hash_of
        for block in reversed(blocks):
            left = references[block] - 1
            assert left >= self._num_loans[block], f"block {block} is released more often than it is held"
            references[block] = left
            if not left:
                if hash_of[block] is None:
                    self._free.append(block)
                else:
                    self._evictable[block] = None

    # Promises

    def reserve(self, num_blocks: int) -> Reservation:
        """Promise blocks. OutOfBlocks when they are not there; ask `can_allocate` first."""
        if num_blocks > self.num_available:
            raise OutOfBlocks(f"{num_blocks} KV blocks to promise, {self.num_available} of {self.num_blocks} available")
        self._num_reserved += num_blocks
        return Reservation(self, num_blocks)

    def can_admit(self, num_blocks: int, hashes: Sequence[bytes] = ()) -> bool:
        """Whether a sequence that will grow to `num_blocks` blocks, its cached prefix included, has room to its end."""
        return self._num_missing(num_blocks, hashes) <= self.num_available

    def admit(self, num_blocks: int, hashes: Sequence[bytes] = ()) -> tuple[list[int], Reservation]:
        """Take the cached prefix of `hashes` and promise the rest of `num_blocks`; OutOfBlocks with nothing taken.

        `hashes` must leave out the last token of a prompt: somebody has to compute the logits after it.
        """
        assert len(hashes) <= num_blocks, "a prefix longer than its sequence"
        missing = self._num_missing(num_blocks, hashes)
        if missing > self.num_available:
            raise OutOfBlocks(f"{missing} more KV blocks needed, {self.num_available} of {self.num_blocks} available")
        prefix = self.match(hashes)
        return prefix, self.reserve(num_blocks - len(prefix))

    # Prefix cache

    def peek(self, hashes: Sequence[bytes]) -> int:
        """Blocks of the longest cached prefix of `hashes`. Takes nothing and changes no order."""
        block_of = self._block_of
        for index, block_hash in enumerate(hashes):
            if block_hash not in block_of:
                return index
        return len(hashes)

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """The longest cached prefix, one reference taken on each block.

        Shorter than `peek` says only when taking an unreferenced block would break a promise made to somebody else.
        """
        blocks: list[int] = []
        available = self.num_available
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            if not self._num_references[block]:
                if not available:
                    break
                available -= 1
                del self._evictable[block]
            self._num_references[block] += 1
            blocks.append(block)
        return blocks

    def register(self, block: int, block_hash: bytes) -> bool:
        """Say that a referenced block now holds the full block of tokens hashed `block_hash`.

        False when another block is cached under that hash: this one stays private and is free after its last release.
        """
        assert self._num_references[block] > 0, f"block {block} is registered but nobody holds it"
        assert self._hash_of[block] in (None, block_hash), f"block {block} is registered with two contents"
        if self._block_of.setdefault(block_hash, block) != block:
            return False
        self._hash_of[block] = block_hash
        return True

    def cached_hashes(self) -> KeysView[bytes]:
        """All hashes that `match` can find: a live view."""
        return self._block_of.keys()

    # Loans

    def lend(self, key: LoanKey, blocks: Iterable[int]) -> tuple[tuple[int, int], ...]:
        """Turn the caller's reference on each block into a loan; returns the (block, generation) for a handle."""
        assert key not in self._loans, f"{key} is lent already"
        lent = tuple(blocks)
        for block in lent:
            assert self._num_references[block] > self._num_loans[block], f"block {block} is lent but nobody holds it"
            self._num_loans[block] += 1
            self._num_lent += self._num_loans[block] == 1
        self._loans[key] = lent
        return tuple((block, self._generation[block]) for block in lent)

    def end_loan(self, key: LoanKey) -> bool:
        """The borrower has copied, or will never. False when there is no such loan: releases may come twice."""
        blocks = self._close_loan(key)
        if blocks is None:
            return False
        self.release(blocks)
        return True

    def take_over(self, key: LoanKey) -> list[int]:
        """The lender decodes the request itself: its loan becomes the caller's references. KVGone when it has ended."""
        blocks = self._close_loan(key)
        if blocks is None:
            raise KVGone(f"the loan of {key} has ended")
        return list(blocks)

    def loans(self) -> Mapping[LoanKey, tuple[int, ...]]:
        """All loans: a live, read-only view."""
        return MappingProxyType(self._loans)

    # Self-check

    def check(self) -> None:
        """AssertionError on any imbalance between references, free list, cache, promises and loans. O(num_blocks)."""
        free, evictable = set(self._free), set(self._evictable)
        assert len(free) == len(self._free), "a block is free twice"
        assert not free & evictable, "a block is free and cached"
        for block, references in enumerate(self._num_references):
            assert references >= 0, f"block {block} has {references} references"
            assert (references == 0) == (block in free or block in evictable), (
                f"block {block} is held and free, or lost"
            )
            block_hash = self._hash_of[block]
            if references == 0:
                assert (block_hash is not None) == (block in evictable), f"block {block} is in the wrong list"
            if block_hash is not None:
                assert self._block_of.get(block_hash) == block, f"block {block} is not found by its hash"
        assert len(self._block_of) == self.num_blocks - self._hash_of.count(None), "the cache names a lost block"
        num_loans = [0] * self.num_blocks
        for blocks in self._loans.values():
            for block in blocks:
                num_loans[block] += 1
        assert num_loans == self._num_loans, "loans and their counts differ"
        assert self._num_lent == self.num_blocks - num_loans.count(0), "num_lent is wrong"
        for block, loans in enumerate(num_loans):
            assert loans <= self._num_references[block], f"block {block} is lent more often than it is held"
        assert 0 <= self._num_reserved <= self.num_free, f"{self._num_reserved} blocks promised, {self.num_free} free"

    # Inside

    def _take(self, num_blocks: int) -> list[int]:
        """Blocks for new content; the caller has made sure that they are there."""
        free, generation = self._free, self._generation
        while len(free) < num_blocks:
            self._evict()
        taken = []
        for _ in range(num_blocks):
            block = free.pop()
            generation[block] += 1
            if self._on_generation is not None:
                self._on_generation(block, generation[block])
            self._num_references[block] = 1
            taken.append(block)
        return taken

    def _evict(self) -> None:
        """Forget the cached block that has gone unused for longest."""
        block, _ = self._evictable.popitem(last=False)
        block_hash = self._hash_of[block]
        assert block_hash is not None
        del self._block_of[block_hash]
        self._hash_of[block] = None
        self._free.append(block)
        self._num_evictions += 1

    def _draw(self, num_blocks: int) -> list[int]:
        self._num_reserved -= num_blocks
        return self._take(num_blocks)

    def _unreserve(self, num_blocks: int) -> None:
        self._num_reserved -= num_blocks

    def _num_missing(self, num_blocks: int, hashes: Collection[bytes]) -> int:
        """Unreferenced blocks that admission uses up: new ones, and cached ones that nobody else holds."""
        missing = num_blocks
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            if self._num_references[block]:
                missing -= 1
        return missing

    def _close_loan(self, key: LoanKey) -> tuple[int, ...] | None:
        blocks = self._loans.pop(key, None)
        for block in blocks or ():
            self._num_loans[block] -= 1
            self._num_lent -= not self._num_loans[block]
        return blocks
