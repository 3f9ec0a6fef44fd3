"""vLLM as DistServe's simulator sees it: each worker does both phases, prefill first, without chunking.

At every step boundary a worker prefills its whole queue, first come first served up to the KV capacity in tokens, or else runs
one decode step. A request stays on its worker. Prefill waits only when more than 9,000,000 tokens of context are decoding.
"""

from __future__ import annotations

from math import inf, nextafter

from brigade.core.errors import ConfigError
from brigade.sim.peers.a100_fit import A100Fit, host_ms, load_fit
from brigade.sim.peers.decode_batch import DecodeBatch
from brigade.sim.peers.prefill_fifo import check_prompt, take_prefill
from brigade.sim.peers.workload import PeerRun, PeerWorkload, Placement, make_run

BACK_PRESSURE_TOKENS = 9_000_000


def simulate_vllm(placement: Placement, workload: PeerWorkload) -> PeerRun:
    """Return the latencies of a workload. Raises ConfigError for a placement without a fit and for requests that never fit."""
    if placement.tp_decode or placement.pp_decode:
        raise ConfigError("the vllm peer mode has no decode instances: tp_decode and pp_decode must be 0")
    if placement.pp_prefill != 1:
        raise ConfigError(f"the vllm peer mode has workers of one pipeline stage, not of {placement.pp_prefill}")
    fit = load_fit(engine="vllm", model=placement.model, tp=placement.tp_prefill, pp=1)
    prefilled_ms = [0.0] * len(workload)
    finished_ms = [0.0] * len(workload)
    workers = [_Worker(fit, workload, prefilled_ms, finished_ms) for _ in range(placement.num_prefill)]
    for request, arrival_ms in enumerate(workload.arrival_ms):
        worker = workers[0]
        if len(workers) > 1:
            for candidate in workers:
                candidate.advance(arrival_ms)
            worker = min(workers, key=lambda candidate: candidate.load(arrival_ms))
        worker.assign(request)
    for worker in workers:
        worker.advance(inf)
    return make_run(workload, prefilled_ms, finished_ms)


class _Worker:
    """Requests are assigned in order of arrival, also ahead of time."""

    def __init__(
        self, fit: A100Fit, workload: PeerWorkload, prefilled_ms: list[float], finished_ms: list[float]
    ) -> None:
        self._fit = fit
        self._workload = workload
        self._prefilled_ms = prefilled_ms
        self._batch = DecodeBatch(fit, workload, finished_ms)
        self._queue: list[int] = []
        self._head = 0
        self._now_ms = 0.0
        self._num_prefilling = 0

    def assign(self, request: int) -> None:
        check_prompt(self._fit, self._workload, request)
        self._queue.append(request)

    def load(self, now_ms: float) -> int:
        """Return requests queued for or in prefill; correct after `advance(now_ms)`. Those that decode do not count."""
        return len(self._queue) - self._head + (self._num_prefilling if self._now_ms > now_ms else 0)

    def advance(self, until_ms: float) -> None:
        """Start every step that starts before `until_ms`."""
        arrival_ms, batch = self._workload.arrival_ms, self._batch
        while self._now_ms < until_ms:
            next_ms = arrival_ms[self._queue[self._head]] if self._head < len(self._queue) else inf
            if not batch.size:
                self._now_ms = max(self._now_ms, min(next_ms, until_ms))
                if self._now_ms >= until_ms:
                    return
            if next_ms <= self._now_ms and batch.num_context_tokens <= BACK_PRESSURE_TOKENS:
                self._prefill()
            else:
                self._num_prefilling = 0
                # Under back pressure the queue is looked at again after each step.
                pause_ms = next_ms if next_ms > self._now_ms else nextafter(self._now_ms, inf)
                self._now_ms = batch.advance(self._now_ms, min(pause_ms, until_ms))

    def _prefill(self) -> None:
        queue = self._queue
        head, num_tokens, num_squared = take_prefill(self._fit, self._workload, queue, self._head, self._now_ms)
        taken = queue[self._head : head]
        self._head = head
        self._num_prefilling = len(taken)
        self._now_ms += self._fit.prefill_stage_ms(num_tokens, num_squared) + host_ms(num_tokens)
        for request in taken:
            self._prefilled_ms[request] = self._now_ms
        self._batch.join_behind(taken)
