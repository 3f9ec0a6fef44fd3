"""From timelines to the figures of a run. The glossary defines them; `core.timeline` computes those of one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brigade.core.timeline import NS_PER_S, RequestTimeline, attainment
from brigade.report.statistics import Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """The requests of one class, or all of them.

    Complete, refused and failed ones add up to all. Failed: neither refused nor answered to the end (an error, or cut by the
    end of the run). Latencies are those of complete requests, where they have them; `queue_s` is arrival to claim.
    """

    num_requests: int
    num_complete: int
    num_refused: int
    num_failed: int
    num_in_slo: int
    attainment: float
    ttft: Distribution | None
    tpot: Distribution | None
    e2e: Distribution | None
    queue: Distribution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A whole run: N requests over a horizon, in model time.

    The horizon reaches from the first arrival to the last arrival or token, whichever is later, unless a caller fixed it. Rates
    divide by it: `offered_rps` counts all requests, `throughput_rps` complete ones, `goodput_rps` those inside their SLO.
    Published goodputs depend on N and horizon, so both stand with every figure.
    """

    horizon_s: float
    offered_rps: float
    throughput_rps: float
    goodput_rps: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    num_input_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    num_attempts: int
    all: ClassSummary
    itl: Distribution | None
    by_class: Mapping[str, ClassSummary]


def summarise(
    timelines: Sequence[RequestTimeline],
    *,
    itl_counts_ns: Mapping[int, int] | None = None,
    horizon_ns: int | None = None,
) -> RunSummary:
    """Compute the figures of a run. `itl_counts_ns` says how often each gap between two tokens came, in nanoseconds."""
    if horizon_ns is None:
        horizon_ns = horizon_of(timelines)
    complete = [t for t in timelines if t.is_complete]
    whole = _summarise_class(timelines)
    num_input = sum(t.isl for t in complete)
    num_output = sum(t.osl for t in timelines)
    classes = sorted({t.priority_class for t in timelines})
    return RunSummary(
        horizon_s=horizon_ns / NS_PER_S,
        offered_rps=_rate(len(timelines), horizon_ns),
        throughput_rps=_rate(len(complete), horizon_ns),
        goodput_rps=_rate(whole.num_in_slo, horizon_ns),
        input_tokens_per_s=_rate(num_input, horizon_ns),
        output_tokens_per_s=_rate(num_output, horizon_ns),
        num_input_tokens=num_input,
        num_output_tokens=num_output,
        num_cached_tokens=sum(t.num_cached_tokens for t in complete),
        num_attempts=sum(t.attempts for t in timelines),
        all=whole,
        itl=Distribution.of_counts(itl_counts_ns or {}),
        by_class={name: _summarise_class([t for t in timelines if t.priority_class == name]) for name in classes},
    )


def horizon_of(timelines: Sequence[RequestTimeline]) -> int:
    """Return the time from the first arrival to the last arrival or token, in nanoseconds; 0 of none."""
    if not timelines:
        return 0
    first = min(t.arrival_ns for t in timelines)
    last = max(max(t.arrival_ns, t.first_token_ns or 0, t.last_token_ns or 0) for t in timelines)
    return last - first


def _summarise_class(timelines: Sequence[RequestTimeline]) -> ClassSummary:
    complete = [t for t in timelines if t.is_complete]
    num_refused = sum(t.refused for t in timelines)
    return ClassSummary(
        num_requests=len(timelines),
        num_complete=len(complete),
        num_refused=num_refused,
        num_failed=len(timelines) - len(complete) - num_refused,
        num_in_slo=sum(t.meets_slo for t in timelines),
        attainment=attainment(timelines),
        ttft=Distribution.of(v for t in complete if (v := t.ttft_s) is not None),
        tpot=Distribution.of(v for t in complete if (v := t.tpot_s) is not None),
        e2e=Distribution.of(v for t in complete if (v := t.e2e_s) is not None),
        queue=Distribution.of((t.claimed_ns - t.arrival_ns) / NS_PER_S for t in complete if t.claimed_ns is not None),
    )


def _rate(count: int, horizon_ns: int) -> float:
    return count * NS_PER_S / horizon_ns if horizon_ns else 0.0
