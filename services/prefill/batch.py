"""The prefills of one worker: which wait for room, which are being computed, and their slices of each step.

Knows nothing of Redis. Claimed jobs hold no blocks until they begin, so they can wait without keeping others out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from brigade.bus.prefill_queue import ClaimedJob
from brigade.core.messages import AttemptKey
from brigade.core.step import Sampled, Slice
from brigade.kv.pool import KVPool
from services.prefill.sequence import PrefillSequence


class PrefillBatch:
    """Implements the step loop's source of slices. `on_prefilled(sequence, first token)` takes over the sequence's blocks;
    `on_scheduled()` is called when a step has taken work away, so that more may be claimed while it runs,
    and when none is left."""

    def __init__(
        self,
        pool: KVPool,
        *,
        on_prefilled: Callable[[PrefillSequence, Sampled], object],
        on_scheduled: Callable[[], object],
    ) -> None:
        self._pool = pool
        self._on_prefilled = on_prefilled
        self._on_scheduled = on_scheduled
        self._revision = pool.engine.model.revision
        self._claimed: deque[PrefillSequence] = deque()
        self._active: list[PrefillSequence] = []
        self._in_step: list[tuple[PrefillSequence, int]] = []
        self._computing: set[bytes] = set()  # hashes of blocks that some active sequence is about to fill
        self.reserves_answers = False

    # -- what there is ---------------------------------------------------------------------------------------------------

    @property
    def num_sequences(self) -> int:
        return len(self._claimed) + len(self._active)

    @property
    def num_left_tokens(self) -> int:
        """Tokens still to be computed, the running step's included."""
        return sum(s.num_left_tokens for s in self._claimed) + sum(s.num_left_tokens for s in self._active)

    @property
    def num_unstarted_tokens(self) -> int:
        """Tokens still to be computed beyond the running step."""
        return self.num_left_tokens - sum(num_tokens for _, num_tokens in self._in_step)

    @property
    def num_unstarted_blocks(self) -> int:
        """Blocks that claimed jobs will take when they begin."""
        return sum(self._num_blocks(sequence) for sequence in self._claimed)

    @property
    def num_held_blocks(self) -> int:
        return sum(len(sequence.blocks) for sequence in self._active)

    def keys(self) -> list[AttemptKey]:
        return [s.key for s in self._claimed] + [s.key for s in self._active if not s.is_dropped]

    # -- in and out ------------------------------------------------------------------------------------------------------

    def add(self, claimed: ClaimedJob) -> None:
        """Queue a claimed job. It must fit into an empty pool: see `why_never`."""
        sequence = PrefillSequence.of(claimed, block_size_tokens=self._pool.block_size_tokens, revision=self._revision)
        self._claimed.append(sequence)

    def why_never(self, claimed: ClaimedJob) -> str | None:
        """Return why this worker can never compute a job, or None."""
        model = self._pool.engine.model
        num_tokens = claimed.spec.num_total_tokens if self.reserves_answers else claimed.waiting.job.num_prefill_tokens
        token_ids = (*claimed.spec.prompt_token_ids, *claimed.prefix)
        if not token_ids:
            return "there are no tokens to prefill"
        if self._pool.num_blocks_for(num_tokens) > self._pool.num_blocks:
            return f"{num_tokens} tokens do not fit into a pool of {self._pool.num_blocks} blocks"
        if len(token_ids) >= model.max_model_len_tokens:
            return f"{len(token_ids)} tokens leave no room for an answer within {model.max_model_len_tokens}"
        if min(token_ids) < 0 or max(token_ids) >= model.vocab_size:
            return f"a token id is outside of the vocabulary of {model.vocab_size}"
        return None

    def drop(self, keys: Collection[AttemptKey]) -> None:
        """Forget attempts that have ended; what the running step computes is given up after it."""
        self._claimed = deque(sequence for sequence in self._claimed if sequence.key not in keys)
        running = {id(sequence) for sequence, _ in self._in_step}
        for sequence in list(self._active):
            if sequence.key in keys:
                sequence.is_dropped = True
                if id(sequence) not in running:
                    self._give_up(sequence)

    def take_all(self) -> list[ClaimedJob]:
        """Remove and return everything that is not yet computed; only what the running step uses stays until its end."""
        active = [sequence.claimed for sequence in self._active if not sequence.is_dropped]
        self.drop([claimed.waiting.job.key for claimed in active])
        return self.take_unstarted() + active

    def take_unstarted(self) -> list[ClaimedJob]:
        """Remove and return what has not begun: it is given back to the queue."""
        unstarted = [sequence.claimed for sequence in self._claimed]
        self._claimed.clear()
        return unstarted

    # -- steps -----------------------------------------------------------------------------------------------------------

    def collect(self, max_tokens: int) -> list[Slice]:
        """Return this step's slices, at most `max_tokens` tokens, in the order in which the jobs were claimed."""
        assert not self._in_step, "the last step's results are missing"
        slices = []
        for sequence in self._active:
            if max_tokens <= 0:
                break
            slices.append(self._schedule(sequence, max_tokens))
            max_tokens -= self._in_step[-1][1]
        for sequence in list(self._claimed):
            if max_tokens <= 0 or not self._has_room(sequence):
                break  # nothing overtakes a job that has no room
            if self._can_share_soon(sequence):
                continue
            self._claimed.remove(sequence)
            self._begin(sequence)
            slices.append(self._schedule(sequence, max_tokens))
            max_tokens -= self._in_step[-1][1]
        if slices:
            self._on_scheduled()
        return slices

    def take(self, results: Sequence[Sampled | None]) -> None:
        """Take the results of the slices collected last, in their order."""
        step, self._in_step = self._in_step, []
        for (sequence, num_tokens), sampled in zip(step, results, strict=True):
            self._advance(sequence, num_tokens)
            if sequence.is_dropped:
                self._give_up(sequence)
            elif sampled is not None:
                self._active.remove(sequence)
                self._on_prefilled(sequence, sampled)
        if step and not self.num_sequences:
            self._on_scheduled()

    def clear(self) -> None:
        """Give up everything. Only when no step is running."""
        self._in_step = []
        self._claimed.clear()
        for sequence in list(self._active):
            self._give_up(sequence)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _num_blocks(self, sequence: PrefillSequence) -> int:
        num_tokens = sequence.num_total_tokens if self.reserves_answers else sequence.num_tokens
        return self._pool.num_blocks_for(num_tokens)

    def _has_room(self, sequence: PrefillSequence) -> bool:
        return self._pool.ledger.can_admit(self._num_blocks(sequence), sequence.cacheable_hashes)

    def _can_share_soon(self, sequence: PrefillSequence) -> bool:
        """Whether another sequence is just computing the next block that this one could take from the cache."""
        num_hits = self._pool.ledger.peek(sequence.cacheable_hashes)
        return num_hits < sequence.num_cacheable and sequence.hashes[num_hits] in self._computing

    def _begin(self, sequence: PrefillSequence) -> None:
        blocks, promise = self._pool.ledger.admit(self._num_blocks(sequence), sequence.cacheable_hashes)
        sequence.num_cached_tokens = sequence.num_computed_tokens = len(blocks) * self._pool.block_size_tokens
        num_more = self._pool.num_blocks_for(sequence.num_tokens) - len(blocks)
        sequence.blocks = blocks + promise.draw(num_more)
        sequence.promise = promise if self.reserves_answers else None
        self._computing.update(sequence.hashes[len(blocks) :])
        self._active.append(sequence)

    def _schedule(self, sequence: PrefillSequence, max_tokens: int) -> Slice:
        piece = sequence.next_slice(max_tokens)
        self._in_step.append((sequence, len(piece.token_ids)))
        return piece

    def _advance(self, sequence: PrefillSequence, num_tokens: int) -> None:
        """Count computed tokens and let others find the blocks that are full now."""
        size = self._pool.block_size_tokens
        first = sequence.num_computed_tokens // size
        sequence.num_computed_tokens += num_tokens
        for index in range(first, sequence.num_computed_tokens // size):
            self._pool.ledger.register(sequence.blocks[index], sequence.hashes[index])
            self._computing.discard(sequence.hashes[index])

    def _give_up(self, sequence: PrefillSequence) -> None:
        self._active.remove(sequence)
        self._computing.difference_update(sequence.hashes)
        self._pool.release(sequence.blocks, sequence.promise)
