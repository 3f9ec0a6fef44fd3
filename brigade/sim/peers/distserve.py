"""DistServe as its own simulator sees it: a static split into prefill and decode instances, first come first served.

Prefill never waits for decode and KV moves in no time, so prefill is simulated to its end first. Requests go to the instance
with the fewest others, the first of those. Waiting for decode counts in TPOT.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from brigade.sim.peers.a100_fit import A100Fit, load_fit
from brigade.sim.peers.decode_batch import DecodeBatch
from brigade.sim.peers.decode_pipeline import DecodePipeline
from brigade.sim.peers.prefill_fifo import PrefillFIFO, PrefillStep
from brigade.sim.peers.workload import PeerRun, PeerWorkload, Placement, make_run


def simulate_distserve(placement: Placement, workload: PeerWorkload) -> PeerRun:
    """Return the latencies of a workload. Raises ConfigError for a placement without a fit and for requests that never fit."""
    model = placement.model
    prefill = load_fit(engine="distserve", model=model, tp=placement.tp_prefill, pp=placement.pp_prefill)
    decode = load_fit(engine="distserve", model=model, tp=placement.tp_decode, pp=placement.pp_decode)
    steps = _prefill_all([prefill] * placement.num_prefill, workload)
    prefilled_ms = [0.0] * len(workload)
    finished_ms = [0.0] * len(workload)
    for end_ms, requests in steps:
        for request in requests:
            prefilled_ms[request] = end_ms
    kind = DecodePipeline if decode.pp > 1 else DecodeFIFO
    instances = [kind(decode, workload, finished_ms) for _ in range(placement.num_decode)]
    for end_ms, requests in steps:
        if len(instances) == 1:
            instances[0].advance(end_ms)
            instances[0].join(end_ms, requests)
            continue
        for instance in instances:
            instance.advance(end_ms)
        for request in requests:
            min(instances, key=lambda instance: instance.num_queued).join(end_ms, [request])
    for instance in instances:
        instance.advance(inf)
    return make_run(workload, prefilled_ms, finished_ms)


def _prefill_all(fits: Sequence[A100Fit], workload: PeerWorkload) -> list[PrefillStep]:
    """Return all prefill steps in order of their ends."""
    steps: list[PrefillStep] = []
    instances = [PrefillFIFO(fit, workload, steps) for fit in fits]
    for request, arrival_ms in enumerate(workload.arrival_ms):
        instance = instances[0]
        if len(instances) > 1:
            for candidate in instances:
                candidate.advance(arrival_ms)
            instance = min(instances, key=lambda candidate: candidate.load(arrival_ms))
        instance.assign(request)
    for instance in instances:
        instance.advance(inf)
    steps.sort(key=lambda step: step[0])
    return steps


class DecodeFIFO:
    """A decode instance of one stage."""

    def __init__(self, fit: A100Fit, workload: PeerWorkload, finished_ms: list[float]) -> None:
        self._batch = DecodeBatch(fit, workload, finished_ms)
        # The boundary up to which steps ran, and what joined during the last of them.
        self._now_ms = 0.0
        self._joining: list[int] = []

    @property
    def num_queued(self) -> int:
        """Requests that wait and are not in a step; correct after `advance` to the present."""
        return self._batch.num_left_over + len(self._joining)

    def join(self, now_ms: float, requests: list[int]) -> None:
        """Queue requests; `advance(now_ms)` came before."""
        if not self._joining and not self._batch.size:
            self._now_ms = max(self._now_ms, now_ms)
        self._joining.extend(requests)

    def advance(self, until_ms: float) -> None:
        """Start every step that starts before `until_ms`."""
        if self._now_ms >= until_ms:
            return
        if self._joining:
            self._batch.join_ahead(self._joining)
            self._joining = []
        self._now_ms = self._batch.advance(self._now_ms, until_ms)
