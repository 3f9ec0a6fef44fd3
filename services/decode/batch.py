"""The running batch: every admitted request gets one token a step. Knows nothing of Redis."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from brigade.core.messages import AttemptKey
from brigade.core.step import Sampled, Slice
from brigade.kv.pool import KVPool
from services.decode.outbox import Outbox
from services.decode.sequence import DecodeSequence


class DecodeBatch:
    """Implements the step loop's source of slices."""

    def __init__(self, pool: KVPool, outbox: Outbox) -> None:
        self._pool = pool
        self._outbox = outbox
        self._running: dict[AttemptKey, DecodeSequence] = {}
        self._in_step: list[DecodeSequence] = []

    @property
    def num_sequences(self) -> int:
        return len(self._running)

    def keys(self) -> list[AttemptKey]:
        return list(self._running)

    def entry_ids(self) -> set[str]:
        return {sequence.received.entry_id for sequence in self._running.values()}

    @property
    def ending_entry_ids(self) -> frozenset[str]:
        """Entries of requests that have ended here and whose end is not recorded yet."""
        return self._outbox.ending_entry_ids

    def get(self, key: AttemptKey) -> DecodeSequence | None:
        return self._running.get(key)

    def add(self, sequence: DecodeSequence) -> None:
        """Let an admitted request, whose KV is in place, take part from the next step on."""
        assert sequence.key not in self._running, f"{sequence.key} is running already"
        self._running[sequence.key] = sequence

    def drop(self, keys: Collection[AttemptKey]) -> list[DecodeSequence]:
        """Remove attempts that have ended and return them; what the running step uses is given up after it."""
        dropped = [self._running.pop(key) for key in keys if key in self._running]
        for sequence in dropped:
            sequence.is_dropped = True
            if sequence not in self._in_step:
                self._give_up(sequence)
        return dropped

    def collect(self) -> list[Slice]:
        """Return one slice per running request; none while too many tokens wait for Redis."""
        assert not self._in_step, "the last step's results are missing"
        if self._outbox.is_full:
            return []
        self._in_step = list(self._running.values())
        size = self._pool.block_size_tokens
        for sequence in self._in_step:
            if sequence.num_kv_tokens == len(sequence.blocks) * size:
                assert sequence.promise is not None
                sequence.blocks += sequence.promise.draw(1)
        return [sequence.next_slice() for sequence in self._in_step]

    def take(self, results: Sequence[Sampled | None]) -> None:
        """Take the tokens of the slices collected last, in their order. A request that ends frees its blocks at once:
        nobody reads them, whatever the script that records the end will answer."""
        step, self._in_step = self._in_step, []
        for sequence, sampled in zip(step, results, strict=True):
            if sequence.is_dropped:
                self._give_up(sequence)
                continue
            assert sampled is not None, "a decode slice without a token"
            output = sequence.output_token_ids
            output.append(sampled.token_id)
            filled = sequence.hash_of_filled_block(self._pool.block_size_tokens)
            if filled is not None:
                self._pool.ledger.register(sequence.blocks[len(sequence.hashes) - 1], filled)
            reason = sequence.received.spec.stop.finish_reason(len(output), sampled.token_id)
            self._outbox.put(sequence, sampled, offset=len(output) - 1, finish_reason=reason)
            if reason is not None:
                del self._running[sequence.key]
                self._give_up(sequence)
        self._outbox.flush()

    def clear(self) -> None:
        """Give up everything. Only when no step is running."""
        step, self._in_step = self._in_step, []
        for sequence in step:
            if sequence.is_dropped:  # its blocks were left to a step whose results nobody took
                self._give_up(sequence)
        self.drop(self.keys())

    def _give_up(self, sequence: DecodeSequence) -> None:
        self._pool.release(sequence.blocks, sequence.promise)
