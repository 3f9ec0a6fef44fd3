"""Random moves on the ledger against a model that recomputes everything from the list of holders."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from brigade.core.errors import OutOfBlocks
from brigade.core.ledger import BlockLedger, Reservation

CHAINS = [[name[:end].encode() for end in range(1, 5)] for name in ("aaaa", "aabb", "bbbb")]  # two share their start
chains = st.sampled_from(CHAINS)


class LedgerMachine(RuleBasedStateMachine):
    """Holders are plain lists; the model knows content, order of release and the generation of every block."""

    sequences = Bundle("sequences")
    reservations = Bundle("reservations")
    loan_keys = Bundle("loan_keys")

    @initialize(num_blocks=st.integers(2, 7))
    def start(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.shown = [0] * num_blocks
        self.ledger = BlockLedger(num_blocks, 16, self.show)
        self.held: list[list[int]] = []  # one list per sequence that is alive
        self.promises: list[Reservation] = []
        self.lent: dict[tuple[str, int], list[int]] = {}
        self.content: dict[bytes, int] = {}
        self.released_at: dict[int, int] = {}
        self.generations = [0] * num_blocks
        self.clock = itertools.count()

    def show(self, block: int, generation: int) -> None:
        assert generation == self.shown[block] + 1
        self.shown[block] = generation

    def references(self, block: int) -> int:
        return sum(blocks.count(block) for blocks in itertools.chain(self.held, self.lent.values()))

    def num_available(self) -> int:
        unreferenced = sum(not self.references(block) for block in range(self.num_blocks))
        return unreferenced - sum(promise.num_blocks for promise in self.promises)

    def expect_new(self, num_blocks: int, taken: list[int]) -> None:
        """`taken` were unreferenced, uncached ones first, then cached ones by time of release."""
        assert len(taken) == num_blocks == len(set(taken))
        assert all(not self.references(block) for block in taken)
        cached = sorted(
            (block for block in self.content.values() if not self.references(block)), key=self.released_at.__getitem__
        )
        num_plain = sum(not self.references(block) for block in range(self.num_blocks)) - len(cached)
        evicted = set(cached[: max(0, num_blocks - num_plain)])
        assert evicted <= set(taken)
        assert not (set(cached) - evicted) & set(taken)
        self.content = {h: block for h, block in self.content.items() if block not in evicted}
        for block in taken:
            self.generations[block] += 1

    def drop(self, blocks: list[int]) -> None:
        """The model's side of a release; `blocks` have left their holder already."""
        for block in reversed(blocks):
            self.released_at[block] = next(self.clock)

    @rule(target=sequences, num_blocks=st.integers(0, 5))
    def allocate(self, num_blocks: int) -> object:
        fits = num_blocks <= self.num_available()
        assert self.ledger.can_allocate(num_blocks) == fits
        if not fits:
            with pytest.raises(OutOfBlocks):
                self.ledger.allocate(num_blocks)
            return multiple()
        taken = self.ledger.allocate(num_blocks)
        self.expect_new(num_blocks, taken)
        self.held.append(taken)
        return taken

    @rule(target=reservations, num_blocks=st.integers(0, 5))
    def reserve(self, num_blocks: int) -> object:
        if num_blocks > self.num_available():
            with pytest.raises(OutOfBlocks):
                self.ledger.reserve(num_blocks)
            return multiple()
        promise = self.ledger.reserve(num_blocks)
        self.promises.append(promise)
        return promise

    @rule(target=sequences, promise=reservations, data=st.data())
    def draw(self, promise: Reservation, data: st.DataObject) -> list[int]:
        """Never refused, whatever the others have done since the promise."""
        num_blocks = data.draw(st.integers(0, promise.num_blocks))
        taken = promise.draw(num_blocks)
        self.expect_new(num_blocks, taken)
        self.held.append(taken)
        return taken

    @rule(promise=consumes(reservations))
    def cancel(self, promise: Reservation) -> None:
        promise.cancel()
        self.promises.remove(promise)

    @rule(target=sequences, hashes=chains)
    def match(self, hashes: list[bytes]) -> list[int]:
        room, expected = self.num_available(), []
        for block_hash in hashes:
            block = self.content.get(block_hash)
            if block is None or (not self.references(block) and not room):
                break
            room -= not self.references(block)
            expected.append(block)
        known = list(itertools.takewhile(self.content.__contains__, hashes))
        assert self.ledger.peek(hashes) == len(known)
        blocks = self.ledger.match(hashes)
        assert blocks == expected
        self.held.append(blocks)
        return blocks

    @rule(target=sequences, hashes=chains, extra=st.integers(0, 2))
    def admit(self, hashes: list[bytes], extra: int) -> object:
        """Admitted exactly when matching and then reserving the rest would succeed; refused without a trace."""
        known = [self.content[h] for h in itertools.takewhile(self.content.__contains__, hashes)]
        num_blocks = len(hashes) + extra
        needed = num_blocks - sum(self.references(block) > 0 for block in known)
        assert self.ledger.can_admit(num_blocks, hashes) == (needed <= self.num_available())
        if needed > self.num_available():
            with pytest.raises(OutOfBlocks):
                self.ledger.admit(num_blocks, hashes)
            return multiple()
        blocks, promise = self.ledger.admit(num_blocks, hashes)
        assert blocks == known
        assert promise.num_blocks == num_blocks - len(known)
        self.held.append(blocks)
        self.promises.append(promise)
        taken = promise.draw(promise.num_blocks)
        self.promises.remove(promise)
        self.expect_new(len(taken), taken)
        blocks.extend(taken)
        return blocks

    @rule(blocks=sequences, hashes=chains)
    def register(self, blocks: list[int], hashes: list[bytes]) -> None:
        """The sequence has computed a prompt: its blocks get the hashes of a chain, as far as they have none yet."""
        if not any(blocks is sequence for sequence in self.held):
            return
        for block, block_hash in zip(blocks, hashes, strict=False):
            if block not in self.content.values():
                assert self.ledger.register(block, block_hash) == (block_hash not in self.content)
                self.content.setdefault(block_hash, block)

    @rule(hashes=chains)
    def come_and_go(self, hashes: list[bytes]) -> None:
        """A whole request at once: the quickest way to a full cache."""
        if len(hashes) <= self.num_available():
            blocks = self.allocate(len(hashes))
            assert isinstance(blocks, list)
            self.register(blocks, hashes)
            self.release(blocks)

    @rule(target=sequences, blocks=sequences)
    def branch(self, blocks: list[int]) -> object:
        if not any(blocks is sequence for sequence in self.held):
            return multiple()
        self.ledger.retain(blocks)
        self.held.append(copy := list(blocks))
        return copy

    @rule(blocks=consumes(sequences))
    def release(self, blocks: list[int]) -> None:
        self.held = [sequence for sequence in self.held if sequence is not blocks]
        self.ledger.release(blocks)
        self.drop(blocks)

    @rule(target=loan_keys, blocks=consumes(sequences))
    def lend(self, blocks: list[int]) -> tuple[str, int]:
        self.held = [sequence for sequence in self.held if sequence is not blocks]
        key = ("r", next(self.clock))
        self.lent[key] = blocks
        assert self.ledger.lend(key, blocks) == tuple((block, self.shown[block]) for block in blocks)
        return key

    @rule(key=consumes(loan_keys))
    def end_loan(self, key: tuple[str, int]) -> None:
        assert self.ledger.end_loan(key)
        self.drop(self.lent.pop(key))
        assert not self.ledger.end_loan(key)

    @rule(target=sequences, key=consumes(loan_keys))
    def take_over(self, key: tuple[str, int]) -> list[int]:
        blocks = self.lent.pop(key)
        assert self.ledger.take_over(key) == blocks
        self.held.append(blocks)
        return blocks

    @invariant()
    def agrees(self) -> None:
        ledger = self.ledger
        ledger.check()
        assert [ledger.num_references(block) for block in range(self.num_blocks)] == [
            self.references(block) for block in range(self.num_blocks)
        ]
        assert self.shown == self.generations == [ledger.generation(block) for block in range(self.num_blocks)]
        assert set(ledger.cached_hashes()) == set(self.content)
        assert dict(ledger.loans()) == {key: tuple(blocks) for key, blocks in self.lent.items()}
        assert ledger.num_lent == len(set(itertools.chain.from_iterable(self.lent.values())))
        assert ledger.num_available == self.num_available() >= 0
        counts = ledger.counts()
        assert counts.num_free + counts.num_cached + counts.num_referenced == self.num_blocks
        assert counts.num_reserved == sum(promise.num_blocks for promise in self.promises)

    def teardown(self) -> None:
        """Whatever happened, giving everything back balances to zero."""
        if not hasattr(self, "ledger"):
            return
        for key in list(self.lent):
            self.ledger.end_loan(key)
        for blocks in self.held:
            self.ledger.release(blocks)
        for promise in self.promises:
            promise.cancel()
        self.ledger.check()
        assert self.ledger.is_idle


LedgerMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerAgainstModel = LedgerMachine.TestCase
