"""The peer modes' shortcuts change nothing: runs in closed form equal a simulation that walks every step of every request."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from heapq import heappop, heappush

import pytest

from brigade.core.errors import ConfigError
from brigade.sim.peers import PEERS, PeerWorkload, Placement
from brigade.sim.peers.a100_fit import A100Fit, host_ms, load_fit

MODEL = "facebook/opt-13b"
BUDGET_TOKENS = 50_000


@dataclass
class Stage:
    """One stage of one worker, as plain as can be."""

    fit: A100Fit
    rank: int
    prefills: list[list[int]] = field(default_factory=list)
    decodes: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    is_prefill: bool = False


class PlainSteps:
    """Walks every step. `workers` are chains of stages; a request is prefilled by the first group, decoded by the second."""

    def __init__(self, workload: PeerWorkload, prefill: list[list[Stage]], decode: list[list[Stage]]) -> None:
        self.workload = workload
        self.prefill, self.decode = prefill, decode
        self.done = [0] * len(workload)
        self.prefilled_ms = [0.0] * len(workload)
        self.finished_ms = [0.0] * len(workload)
        self.events: list[tuple[float, int, object]] = []
        self.num_events = 0

    def at(self, now_ms: float, event: object) -> None:
        self.num_events += 1
        heappush(self.events, (now_ms, self.num_events, event))

    def run(self) -> None:
        for request, arrival_ms in enumerate(self.workload.arrival_ms):
            self.at(arrival_ms, request)
        while self.events:
            now_ms = self.events[0][0]
            # An idle worker wakes after all that happens at the instant.
            while self.events and self.events[0][0] == now_ms:
                event = heappop(self.events)[2]
                if isinstance(event, int):
                    self.on_arrival(event)
                else:
                    self.on_end(now_ms, *event)
            for worker in {id(worker): worker for worker in self.prefill + self.decode}.values():
                for stage in worker:
                    if not stage.running:
                        self.start(now_ms, worker, stage)

    def on_arrival(self, request: int) -> None:
        heads = [worker[0] for worker in self.prefill]
        head = min(heads, key=lambda stage: len(stage.prefills) + len(stage.running) * stage.is_prefill)
        head.prefills.append([request])

    def context(self, request: int) -> int:
        return self.workload.input_tokens[request] + self.done[request]

    def start(self, now_ms: float, worker: list[Stage], stage: Stage) -> None:
        stage.is_prefill = bool(stage.prefills)
        if stage.prefills and stage.rank == 0:
            room = stage.fit.capacity_tokens
            while stage.prefills and (length := self.workload.input_tokens[stage.prefills[0][0]]) <= room:
                room -= length
                stage.running += stage.prefills.pop(0)
        elif stage.prefills:
            stage.running = stage.prefills.pop(0)
        else:
            room = BUDGET_TOKENS
            while stage.decodes and self.context(stage.decodes[0]) + 1 <= room:
                room -= self.context(stage.decodes[0]) + 1
                stage.running.append(stage.decodes.pop(0))
        if not stage.running:
            return
        contexts = [self.context(request) for request in stage.running]
        if stage.is_prefill:
            step_ms = stage.fit.prefill_stage_ms(sum(contexts), sum(length * length for length in contexts))
        else:
            base, slope = stage.fit.decode_line(len(contexts))
            step_ms = base + slope * sum(contexts)
        if stage.rank == 0:
            step_ms += host_ms(sum(contexts))
        self.at(now_ms + step_ms, (worker, stage))

    def on_end(self, now_ms: float, worker: list[Stage], stage: Stage) -> None:
        requests, stage.running = stage.running, []
        is_last = stage is worker[-1]
        following = worker[0] if is_last else worker[stage.rank + 1]
        if stage.is_prefill and not is_last:
            following.prefills.append(requests)
        elif stage.is_prefill:
            for request in requests:
                self.prefilled_ms[request] = now_ms
                heads = [worker[0]] if worker in self.decode else [other[0] for other in self.decode]
                min(heads, key=lambda stage: len(stage.decodes)).decodes.append(request)
        else:
            for request in requests:
                self.done[request] += is_last
                if self.done[request] < self.workload.output_tokens[request]:
                    following.decodes.append(request)
                else:
                    self.finished_ms[request] = now_ms


def draw(seed: int, *, num_requests: int, mean_gap_ms: float, longest: int) -> PeerWorkload:
    """Irregular arrivals, with bursts at one instant, and lengths spread over magnitudes."""
    generator = random.Random(seed)
    arrival_ms = [0.0]
    for _ in range(num_requests - 1):
        arrival_ms.append(arrival_ms[-1] + (generator.random() > 0.2) * generator.expovariate(1 / mean_gap_ms))
    return PeerWorkload(
        arrival_ms=arrival_ms,
        input_tokens=[int(longest ** generator.uniform(0.3, 1)) for _ in range(num_requests)],
        output_tokens=[int(300 ** generator.uniform(0, 1)) for _ in range(num_requests)],
    )


PLACEMENTS = {
    "1P1D": ("distserve", Placement(model=MODEL, tp_prefill=2, tp_decode=1, pp_decode=1)),
    "1P3D": ("distserve", Placement(model=MODEL, tp_prefill=4, tp_decode=1, pp_decode=1, num_decode=3)),
    "3P2D": ("distserve", Placement(model=MODEL, tp_prefill=1, num_prefill=3, tp_decode=2, pp_decode=1, num_decode=2)),
    "pipelines": ("distserve", Placement(model=MODEL, tp_prefill=1, pp_prefill=2, tp_decode=1, pp_decode=4)),
    "two pipelines": (
        "distserve",
        Placement(model=MODEL, tp_prefill=1, num_prefill=2, tp_decode=1, pp_decode=2, num_decode=2),
    ),
    "vllm": ("vllm", Placement(model=MODEL, tp_prefill=1)),
    "three vllm": ("vllm", Placement(model=MODEL, tp_prefill=1, num_prefill=3)),
}


@pytest.mark.parametrize("shape", PLACEMENTS)
@pytest.mark.parametrize("longest", [400, 12_000], ids=["within budget", "beyond budget"])
@pytest.mark.parametrize("mean_gap_ms", [15.0, 250.0], ids=["crowded", "sparse"])
def test_skipping_equals_plain_steps(shape: str, longest: int, mean_gap_ms: float) -> None:
    """Every latency of every request, on clusters and loads for which the peer left no golden file."""
    peer, placement = PLACEMENTS[shape]
    workload = draw(7, num_requests=120, mean_gap_ms=mean_gap_ms, longest=longest)
    run = PEERS[peer](placement, workload)

    def workers(tp: int, pp: int, count: int) -> list[list[Stage]]:
        fit = load_fit(engine=peer, model=MODEL, tp=tp, pp=pp)
        return [[Stage(fit, rank) for rank in range(pp)] for _ in range(count)]

    prefill = workers(placement.tp_prefill, placement.pp_prefill, placement.num_prefill)
    decode = prefill
    if peer == "distserve":
        decode = workers(placement.tp_decode, placement.pp_decode, placement.num_decode)
    plain = PlainSteps(workload, prefill, decode)
    plain.run()
    for request, arrival_ms in enumerate(workload.arrival_ms):
        assert run.ttft_ms[request] == pytest.approx(plain.prefilled_ms[request] - arrival_ms, abs=1e-6), request
        assert run.total_ms[request] == pytest.approx(plain.finished_ms[request] - arrival_ms, abs=1e-6), request


@pytest.mark.parametrize(
    ("peer", "placement", "input_tokens", "complaint"),
    [
        ("distserve", Placement(model="facebook/opt-1b", tp_prefill=1, tp_decode=1, pp_decode=1), 10, "no fit"),
        ("vllm", Placement(model=MODEL, tp_prefill=1, tp_decode=1, pp_decode=1), 10, "no decode instances"),
        ("vllm", Placement(model=MODEL, tp_prefill=1), 70_000, "KV capacity"),
        ("vllm", Placement(model=MODEL, tp_prefill=1), 49_999, "50000 tokens"),
        ("vllm", Placement(model=MODEL, tp_prefill=1), 0, "1 or more"),
    ],
)
def test_what_could_never_run_is_refused(peer: str, placement: Placement, input_tokens: int, complaint: str) -> None:
    """The peer itself spins for ever on a request that fits into no step."""
    with pytest.raises(ConfigError, match=complaint):
        PEERS[peer](placement, PeerWorkload(arrival_ms=[0.0], input_tokens=[input_tokens], output_tokens=[5]))
