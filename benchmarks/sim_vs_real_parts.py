"""The parts of `sim_vs_real`: what the path around the engine takes, how long steps were, and simulations with them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median

from benchmarks.measures import RequestTimes
from benchmarks.timed_engine import StepNote
from brigade.core.timeline import RequestTimeline
from brigade.policies.cost_forms import StepCosts
from brigade.policies.cost_model import PrefillPart
from brigade.report import summarise
from brigade.sim.scenario import Scenario
from brigade.sim.simulator import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTimes:
    """What a request pays outside of steps: up to its first token; from the end of its prefill step to its first decode step
    without the KV's transfer; and between two decode steps."""

    path_s: float
    hand_over_s: float
    host_step_s: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def path_of(
    idle: Sequence[RequestTimes], prefill: Sequence[StepNote], decode: Sequence[StepNote], costs: StepCosts, isl: int
) -> PathTimes:
    """Read the path off requests that were alone. A request's steps lie between its sending and its last token."""
    path, hand_over, gaps = [], [], []
    for request in idle:
        first = [note for note in prefill if request.sent_s <= note.start_s <= request.token_s[0]]
        steps = [note for note in decode if request.sent_s <= note.start_s <= request.token_s[-1]]
        if len(first) != 1 or len(steps) != len(request.token_s) - 1:
            raise RuntimeError(f"a lone request had {len(first)} prefill and {len(steps)} decode steps")
        path.append(request.ttft_s - (first[0].end_s - first[0].start_s))
        hand_over.append(steps[0].start_s - first[0].end_s - costs.kv_transfer_ns(isl) / 1e9)
        gaps += [after.start_s - before.end_s for before, after in itertools.pairwise(steps)]
    # Gaps add up over an answer, so their mean counts; the others come once a request, so the usual one does.
    return PathTimes(path_s=median(path), hand_over_s=max(0.0, median(hand_over)), host_step_s=fmean(gaps))


def step_factors(
    windows: Sequence[tuple[float, float]],
    notes: Mapping[str, Sequence[StepNote]],
    costs: StepCosts,
    *,
    mean_context_tokens: int,
) -> dict[str, dict[str, float]]:
    """Set the steps that began within some windows of time beside their prices, per role. Contexts are not noted: the mean
    stands for all, which hardly matters where decode costs are mostly fixed."""
    found = {}
    for name, all_notes in notes.items():
        role = name.partition("-")[0]
        run = [note for note in all_notes if any(start <= note.start_s <= end for start, end in windows)]
        wall_s = sum(note.end_s - note.start_s for note in run)
        if role == "prefill":
            parts = ([PrefillPart(num_new_tokens=n.num_tokens // n.num_slices)] * n.num_slices for n in run)
            priced_ns = sum(costs.prefill_ns(part) for part in parts)
        else:
            priced_ns = sum(costs.decode_step_ns(n.num_slices, n.num_slices * mean_context_tokens) for n in run)
        found[role] = {
            "num_steps": len(run),
            "busy": wall_s / sum(end - start for start, end in windows),
            "factor": wall_s / (priced_ns / 1e9),
            "core": sum(note.cpu_s for note in run) / wall_s,
            "mean_slices": fmean(note.num_slices for note in run),
            "host_gap_p50_s": median(b.start_s - a.end_s for a, b in itertools.pairwise(run)),
        }
    return found


def simulated_figures(scenario: Scenario, path: PathTimes | None, slowdowns: Mapping[str, float]) -> dict[str, float]:
    """Simulate once. The path to the first token is the same for all requests, so it shifts all that follows: it is added
    to the times to first token, and changes nothing else."""
    workers = [replace(w, slowdown=round(slowdowns.get(w.role.value, 1.0), 4)) for w in scenario.workers]
    scenario = replace(scenario, workers=tuple(workers))
    if path is not None:
        scenario = replace(scenario, hand_over_s=path.hand_over_s, host_step_s=path.host_step_s)
    result = simulate(scenario)
    found = figures(list(result.timelines))
    for name in ("ttft_p50_ms", "ttft_p90_ms"):
        # The simulator pays host time in the prefill step too; the path as timed holds all of it.
        found[name] += (path.path_s - path.host_step_s) * 1e3 if path is not None else 0.0
    return found


def figures(timelines: Sequence[RequestTimeline]) -> dict[str, float]:
    """Return what is compared. Raises RuntimeError unless every request was answered."""
    summary = summarise(timelines)
    whole = summary.all
    if whole.num_complete != whole.num_requests or whole.ttft is None or whole.tpot is None:
        raise RuntimeError(f"{whole.num_complete} of {whole.num_requests} requests were answered")
    return {
        "num_requests": whole.num_requests,
        "horizon_s": summary.horizon_s,
        "ttft_p50_ms": whole.ttft.p50_s * 1e3,
        "ttft_p90_ms": whole.ttft.p90_s * 1e3,
        "tpot_p50_ms": whole.tpot.p50_s * 1e3,
        "tpot_p90_ms": whole.tpot.p90_s * 1e3,
    }
