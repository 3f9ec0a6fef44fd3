"""A colocated serving loop over `Engine.step`, small enough to read: the engine's measure, and how to drive one.

Each step computes the prompts that wait, first come first served, up to a token budget (the last one cut to fit), and
one token of every answer under way. A request enters only with room for its whole prompt and answer, so nothing is
ever preempted. No Redis, no processes, no prefix cache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.measures import RequestTimes
from benchmarks.workload import BenchRequest
from brigade.core.ledger import BlockLedger, Reservation
from brigade.core.sampling import SamplingParams
from brigade.core.step import Engine, SampleRequest, Slice

GREEDY = SamplingParams(temperature=0.0)


@dataclass(slots=True, kw_only=True)
class Running:
    """A request under way. `num_computed_tokens` of its prompt and answer have KV in `block_table`."""

    request: BenchRequest
    sent_s: float
    reservation: Reservation
    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    output_token_ids: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)

    @property
    def num_prompt_tokens_left(self) -> int:
        return max(0, len(self.request.prompt_token_ids) - self.num_computed_tokens)


class ClosedLoop:
    """Runs requests through one engine, `concurrency` at a time, and notes when each token is known."""

    def __init__(
        self, engine: Engine, *, concurrency: int, max_batch_tokens: int, now_s: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine = engine
        self._ledger = BlockLedger(engine.num_blocks, engine.block_size_tokens)
        self._concurrency = concurrency
        self._max_batch_tokens = max_batch_tokens
        self._now_s = now_s
        self._prefilling: deque[Running] = deque()
        self._decoding: list[Running] = []
        self._finished: list[Running] = []
        self.num_steps = 0

    def run(self, requests: Iterable[BenchRequest]) -> list[RequestTimes]:
        """Answer all requests; times are in the order in which the answers ended."""
        waiting = deque(requests)
        self._finished = []
        while waiting or self._prefilling or self._decoding:
            while waiting and len(self._prefilling) + len(self._decoding) < self._concurrency:
                self._prefilling.append(self._admit(waiting.popleft()))
            self._step()
        assert self._ledger.is_idle, "blocks are left over"
        return [RequestTimes(sent_s=item.sent_s, token_s=tuple(item.token_s)) for item in self._finished]

    def _admit(self, request: BenchRequest) -> Running:
        # The last token's KV is never read, so it needs no room.
        num_tokens = len(request.prompt_token_ids) + request.num_output_tokens - 1
        reservation = self._ledger.reserve(self._ledger.num_blocks_for(num_tokens))
        return Running(request=request, sent_s=self._now_s(), reservation=reservation)

    def _step(self) -> None:
        """Compute one batch and hand its tokens out."""
        batch = [(item, self._decode_slice(item)) for item in self._decoding]
        num_tokens_left = self._max_batch_tokens
        for item in self._prefilling:
            if not num_tokens_left:
                break
            num_tokens = min(num_tokens_left, item.num_prompt_tokens_left)
            batch.append((item, self._prefill_slice(item, num_tokens)))
            num_tokens_left -= num_tokens
        results = self._engine.step([part for _, part in batch])
        now_s = self._now_s()
        self.num_steps += 1
        for (item, part), sampled in zip(batch, results, strict=True):
            item.num_computed_tokens += len(part.token_ids)
            if sampled is not None:
                item.output_token_ids.append(sampled.token_id)
                item.token_s.append(now_s)
        while self._prefilling and not self._prefilling[0].num_prompt_tokens_left:
            self._decoding.append(self._prefilling.popleft())
        for item in self._decoding:
            if len(item.output_token_ids) == item.request.num_output_tokens:
                self._finish(item)
        self._decoding = [item for item in self._decoding if item.block_table]

    def _finish(self, item: Running) -> None:
        self._ledger.release(item.block_table)
        item.block_table = []
        item.reservation.cancel()
        self._finished.append(item)

    def _prefill_slice(self, item: Running, num_tokens: int) -> Slice:
        start, prompt = item.num_computed_tokens, item.request.prompt_token_ids
        return self._slice(item, prompt[start : start + num_tokens], is_last=start + num_tokens == len(prompt))

    def _decode_slice(self, item: Running) -> Slice:
        return self._slice(item, item.output_token_ids[-1:], is_last=True)

    def _slice(self, item: Running, token_ids: Sequence[int], *, is_last: bool) -> Slice:
        """Draw the blocks that these tokens need; ask for a token after the last of them when it is the newest."""
        num_blocks = self._ledger.num_blocks_for(item.num_computed_tokens + len(token_ids))
        if num_blocks > len(item.block_table):
            item.block_table += item.reservation.draw(num_blocks - len(item.block_table))
        return Slice(
            token_ids=token_ids,
            num_context_tokens=item.num_computed_tokens,
            block_table=item.block_table,
            sample=SampleRequest(params=GREEDY, index=len(item.output_token_ids)) if is_last else None,
        )
