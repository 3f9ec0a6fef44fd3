"""What a workload consists of, read from the tables [workload] and [slo] of a scenario file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from brigade.core.request import DEFAULT_CLASS, PRIORITY_CLASSES
from brigade.workload.toml_table import Table
from brigade.workload.trace import TRACE_PREFIX_BLOCK_TOKENS, TraceRow, read_trace

ARRIVALS = ("poisson", "gamma", "fixed", "burst", "trace")
_LENGTHS = "lengths need one of: isl and osl, isl_median and osl_median, file"


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLengths:
    """Every request the same."""

    isl: int
    osl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLengths:
    """Input and output drawn apart: exp(N(log median, sigma)), at least one token."""

    isl_median: float
    isl_sigma: float
    osl_median: float
    osl_sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLengths:
    """Pairs drawn from the rows of a file, with replacement: input and output stay together."""

    path: str
    rows: tuple[TraceRow, ...]


Lengths = FixedLengths | LognormalLengths | DrawnLengths


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPart:
    """One kind of request. `num_groups` > 0: each request begins with the `prefix_tokens` tokens of a group drawn evenly."""

    name: str
    share: float
    priority_class: str
    lengths: Lengths
    num_groups: int = 0
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPhase:
    """A stretch of time with its own rate and, where `shares` is not empty, its own mix."""

    duration_s: float
    rate_rps: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SLOSpec:
    """Targets of one class. TTFT is the larger of `ttft_s` and `ttft_unloaded_factor` × the prefill alone on an idle worker."""

    ttft_s: float | None = None
    ttft_unloaded_factor: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A workload but for its seed. `trace` gives arrivals, and lengths where `mix` is empty.

    At least one of `num_requests` and `duration_s` ends it, or the trace or the phases do. `rate_scale` divides a trace's
    gaps; `jitter_s` moves its arrivals by up to that much, where stamps are coarse. One prefix id stands for
    `prefix_block_tokens` tokens.
    """

    arrivals: Literal["poisson", "gamma", "fixed", "burst", "trace"]
    rate_rps: float = 0.0
    cv: float = 1.0
    num_requests: int | None = None
    duration_s: float | None = None
    mix: tuple[MixPart, ...] = ()
    phases: tuple[LoadPhase, ...] = ()
    trace_path: str = ""
    trace: tuple[TraceRow, ...] = ()
    rate_scale: float = 1.0
    jitter_s: float = 0.0
    max_isl: int | None = None
    max_osl: int | None = None
    slo: Mapping[str, SLOSpec]
    prefix_block_tokens: int = TRACE_PREFIX_BLOCK_TOKENS

    def at_rate(self, rate_rps: float) -> WorkloadSpec:
        """Return the same workload at another mean rate: traces and phases are scaled."""
        if self.arrivals == "trace":
            last_ns = self.trace[-1].arrival_ns
            assert last_ns is not None
            return replace(self, rate_scale=rate_rps * last_ns / 1e9 / max(1, len(self.trace) - 1))
        if self.phases:
            mean = sum(p.rate_rps * p.duration_s for p in self.phases) / sum(p.duration_s for p in self.phases)
            scaled = tuple(replace(p, rate_rps=p.rate_rps * rate_rps / mean) for p in self.phases)
            return replace(self, phases=scaled)
        return replace(self, rate_rps=rate_rps)

    def slo_of(self, priority_class: str) -> SLOSpec:
        return self.slo.get(priority_class, self.slo[""])

    @property
    def has_prefixes(self) -> bool:
        """Whether requests may share prefixes."""
        return any(part.num_groups for part in self.mix) or (not self.mix and any(row.prefix_ids for row in self.trace))


def load_workload(root: Table) -> WorkloadSpec:
    """Read [workload] and [slo] of a scenario. Raises ConfigError naming file, line and field."""
    slo = _load_slo(root.take_table("slo"))
    table = root.take_table("workload")
    if table is None:
        raise root.error("workload", "is missing: a scenario needs a table [workload]")
    arrivals = table.take_text("arrivals", "poisson", among=ARRIVALS)
    mix = _load_mix(table)
    phases = _load_phases(table, mix)
    trace_path = table.take_path("trace") if table.has("trace") or arrivals == "trace" else ""
    trace = tuple(read_trace(trace_path)) if trace_path else ()
    rate_rps = 0.0
    if arrivals in ("poisson", "gamma", "fixed") and not phases:
        rate_rps = table.take_float("rate_rps", above=0)
    spec = WorkloadSpec(
        arrivals=arrivals,  # type: ignore[arg-type]
        rate_rps=rate_rps,
        cv=table.take_float("cv", above=0) if arrivals == "gamma" else 1.0,
        num_requests=table.take_int("num_requests", least=1) if table.has("num_requests") else None,
        duration_s=table.take_float("duration_s", above=0) if table.has("duration_s") else None,
        mix=mix,
        phases=phases,
        trace_path=trace_path,
        trace=trace,
        rate_scale=table.take_float("rate_scale", 1.0, above=0) if trace else 1.0,
        jitter_s=table.take_float("jitter_s", 0.0) if trace else 0.0,
        max_isl=table.take_int("max_isl", least=1) if table.has("max_isl") else None,
        max_osl=table.take_int("max_osl", least=1) if table.has("max_osl") else None,
        slo=slo,
    )
    if arrivals == "trace" and trace[0].arrival_ns is None:
        raise table.error("trace", f"has lengths only ({trace_path}); name other arrivals, or a trace with arrival_s")
    if arrivals != "trace" and trace_path:
        raise table.error(
            "trace", 'is read only with arrivals = "trace"; lengths are drawn from a file in [[workload.mix]]'
        )
    if arrivals == "trace" and phases:
        raise table.error("phases", 'cannot stand beside arrivals = "trace"')
    if not mix and not trace:
        raise table.error("mix", "is missing: say how long requests are in [[workload.mix]]")
    if arrivals == "burst" and phases:
        raise table.error("phases", 'cannot stand beside arrivals = "burst"')
    if arrivals == "burst" and spec.num_requests is None:
        raise table.error("num_requests", "is missing: a burst needs a number of requests")
    if not (spec.num_requests or spec.duration_s or phases or arrivals == "trace"):
        raise table.error("num_requests", "is missing: give num_requests or duration_s, or the workload never ends")
    table.finish()
    return spec


def _load_mix(table: Table) -> tuple[MixPart, ...]:
    parts: list[MixPart] = []
    for number, part in enumerate(table.take_tables("mix")):
        name = part.take_text("name", f"part{number}")
        if name in {other.name for other in parts}:
            raise part.error("name", f"is taken already: {name!r}")
        num_groups = part.take_int("prefix_groups", 0)
        parts.append(
            MixPart(
                name=name,
                share=part.take_float("share", 1.0, above=0),
                priority_class=part.take_text("class", DEFAULT_CLASS, among=PRIORITY_CLASSES),
                lengths=_load_lengths(part),
                num_groups=num_groups,
                prefix_tokens=part.take_int("prefix_tokens", least=1) if num_groups else 0,
            )
        )
        part.finish()
    return tuple(parts)


def _load_lengths(part: Table) -> Lengths:
    if part.has("file"):
        path = part.take_path("file")
        return DrawnLengths(path=path, rows=tuple(read_trace(path)))
    if part.has("isl") or part.has("osl"):
        return FixedLengths(isl=part.take_int("isl", least=1), osl=part.take_int("osl", least=1))
    if part.has("isl_median") or part.has("osl_median"):
        return LognormalLengths(
            isl_median=part.take_float("isl_median", above=0),
            isl_sigma=part.take_float("isl_sigma", 0.5, above=0),
            osl_median=part.take_float("osl_median", above=0),
            osl_sigma=part.take_float("osl_sigma", 0.5, above=0),
        )
    raise part.error(None, f"has no lengths; {_LENGTHS}")


def _load_phases(table: Table, mix: tuple[MixPart, ...]) -> tuple[LoadPhase, ...]:
    names = [part.name for part in mix]
    phases = []
    for phase in table.take_tables("phases"):
        phases.append(
            LoadPhase(
                duration_s=phase.take_float("duration_s", above=0),
                rate_rps=phase.take_float("rate_rps", above=0),
                shares=phase.take_shares("shares", names),
            )
        )
        if phases[-1].shares and not any(phases[-1].shares.values()):
            raise phase.error("shares", "must not all be 0")
        phase.finish()
    return tuple(phases)


def _load_slo(table: Table | None) -> Mapping[str, SLOSpec]:
    """Return the targets per class; the empty name is for every other class."""
    if table is None:
        return {"": SLOSpec()}
    found = {"": _load_targets(table)}
    for name in PRIORITY_CLASSES:
        inner = table.take_table(name)
        if inner is not None:
            found[name] = _load_targets(inner)
            inner.finish()
    table.finish()
    return found


def _load_targets(table: Table) -> SLOSpec:
    def target(key: str) -> float | None:
        if table.has(key):
            return table.take_float(key, above=0)
        table.take_nothing(key)
        return None

    return SLOSpec(
        ttft_s=target("ttft_s"), ttft_unloaded_factor=target("ttft_unloaded_factor"), tpot_s=target("tpot_s")
    )
