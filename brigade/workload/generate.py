"""From a specification and a seed to requests: the same ones on every Python.

Only `random.Random.random` is drawn from, whose values are promised; distributions are made of it here. Arrivals,
lengths and jitter have generators of their own, so the same seed at another rate gives the same requests, closer together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from brigade.core.request import DEFAULT_CLASS
from brigade.core.timeline import NS_PER_S, SLO
from brigade.workload.spec import DrawnLengths, FixedLengths, LoadPhase, MixPart, SLOSpec, WorkloadSpec

NO_TARGETS = SLO()

_GROUP_SHIFT, _PART_SHIFT = 32, 48
"""Prefix ids of mixes: part, group and block in one number, far above the ids of traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRequest:
    """One request to come. It asks for exactly `osl` tokens. `prefix_ids` name its leading blocks of `prefix_block_tokens`
    tokens: equal leading ids are shared tokens."""

    arrival_ns: int
    isl: int
    osl: int
    priority_class: str = DEFAULT_CLASS
    prefix_ids: tuple[int, ...] = ()
    slo: SLO = NO_TARGETS


def generate(
    spec: WorkloadSpec, seed: int, *, unloaded_prefill_ns: Callable[[int], int] | None = None
) -> Iterator[WorkloadRequest]:
    """Yield the requests in order of arrival. `unloaded_prefill_ns` prices a prompt alone on an idle worker, for targets that
    are multiples of it."""
    arrivals = _trace_arrivals(spec, seed) if spec.arrivals == "trace" else _arrivals(spec, Random(f"arrivals {seed}"))
    draw = _Draw(spec, seed)
    targets = _Targets(spec, unloaded_prefill_ns)
    end_ns = math.inf if spec.duration_s is None else round(spec.duration_s * NS_PER_S)
    for number, (arrival_ns, row) in enumerate(arrivals):
        if arrival_ns >= end_ns or number == spec.num_requests:
            return
        isl, osl, priority_class, prefix_ids = draw.request(arrival_ns, row)
        yield WorkloadRequest(
            arrival_ns=arrival_ns,
            isl=isl,
            osl=osl,
            priority_class=priority_class,
            prefix_ids=prefix_ids,
            slo=targets.slo(priority_class, isl),
        )


def _arrivals(spec: WorkloadSpec, random: Random) -> Iterator[tuple[int, int]]:
    """Yield (arrival, number) of a process whose unit-rate gaps are stretched to the rate, phase by phase; a burst is at 0."""
    if spec.arrivals == "burst":
        yield from ((0, number) for number in range(spec.num_requests or 0))
        return
    gap = _unit_gaps(spec, random)
    phases = spec.phases or (LoadPhase(duration_s=math.inf, rate_rps=spec.rate_rps, shares={}),)
    start_s, work, done, number = 0.0, next(gap), 0.0, 0
    for phase in phases:
        capacity = phase.duration_s * phase.rate_rps
        while work < done + capacity:
            yield round((start_s + (work - done) / phase.rate_rps) * NS_PER_S), number
            work += next(gap)
            number += 1
        done += capacity
        start_s += phase.duration_s


def _unit_gaps(spec: WorkloadSpec, random: Random) -> Iterator[float]:
    """Yield gaps of mean 1."""
    if spec.arrivals == "fixed":
        while True:
            yield 1.0
    if spec.arrivals == "gamma":
        shape = 1 / spec.cv**2
        while True:
            yield _gamma(random, shape) / shape
    while True:
        yield -math.log(1.0 - random.random())


def _gamma(random: Random, shape: float) -> float:
    """Draw from the gamma distribution of scale 1 (Marsaglia and Tsang's squeeze)."""
    if shape < 1:
        return _gamma(random, shape + 1) * math.pow(1.0 - random.random(), 1 / shape)
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = _normal(random)
        v = (1 + c * x) ** 3
        if v > 0 and math.log(1.0 - random.random()) < 0.5 * x * x + d - d * v + d * math.log(v):
            return d * v


def _normal(random: Random) -> float:
    """Draw from the standard normal distribution (Box and Muller)."""
    return math.sqrt(-2 * math.log(1.0 - random.random())) * math.cos(2 * math.pi * random.random())


def _trace_arrivals(spec: WorkloadSpec, seed: int) -> Iterator[tuple[int, int]]:
    """Yield (arrival, number of the row) of a trace, from 0 on."""
    random, first_ns = Random(f"jitter {seed}"), spec.trace[0].arrival_ns
    assert first_ns is not None
    stamped = []
    for number, row in enumerate(spec.trace):
        assert row.arrival_ns is not None
        moved_ns = (
            row.arrival_ns - first_ns + (round(random.random() * spec.jitter_s * NS_PER_S) if spec.jitter_s else 0)
        )
        stamped.append((round(moved_ns / spec.rate_scale), number))
    yield from sorted(stamped)


class _Draw:
    """Draws what a request is: kind, lengths, shared prefix."""

    def __init__(self, spec: WorkloadSpec, seed: int) -> None:
        self._spec = spec
        self._random = Random(f"lengths {seed}")
        self._block_tokens = spec.prefix_block_tokens
        self._phase_ends: list[int] = []
        end_s = 0.0
        for phase in spec.phases:
            end_s += phase.duration_s
            self._phase_ends.append(round(end_s * NS_PER_S))
        self._phase = 0
        self._weights = self._weights_of(0)

    def request(self, arrival_ns: int, row: int) -> tuple[int, int, str, tuple[int, ...]]:
        """Return isl, osl, class and prefix ids."""
        spec = self._spec
        if not spec.mix:
            from_trace = spec.trace[row]
            isl, osl = self._clip(from_trace.isl, from_trace.osl)
            return isl, osl, DEFAULT_CLASS, from_trace.prefix_ids
        while self._phase + 1 < len(self._phase_ends) and arrival_ns >= self._phase_ends[self._phase]:
            self._phase += 1
            self._weights = self._weights_of(self._phase)
        number = self._pick()
        part = spec.mix[number]
        isl, osl = self._clip(*self._lengths(part))
        return isl, osl, part.priority_class, self._prefix(number, part, isl)

    def _weights_of(self, phase: int) -> list[float]:
        shares = self._spec.phases[phase].shares if self._spec.phases else {}
        return [shares.get(part.name, 0.0) if shares else part.share for part in self._spec.mix]

    def _pick(self) -> int:
        weights = self._weights
        if len(weights) == 1:
            return 0
        point = self._random.random() * math.fsum(weights)
        for number, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return number
        return max(number for number, weight in enumerate(weights) if weight)

    def _lengths(self, part: MixPart) -> tuple[int, int]:
        lengths = part.lengths
        if isinstance(lengths, DrawnLengths):
            row = lengths.rows[int(self._random.random() * len(lengths.rows))]
            return row.isl, row.osl
        if isinstance(lengths, FixedLengths):
            return lengths.isl, lengths.osl
        isl = lengths.isl_median * math.exp(lengths.isl_sigma * _normal(self._random))
        osl = lengths.osl_median * math.exp(lengths.osl_sigma * _normal(self._random))
        return max(1, round(isl)), max(1, round(osl))

    def _clip(self, isl: int, osl: int) -> tuple[int, int]:
        spec = self._spec
        return min(isl, spec.max_isl or isl), min(osl, spec.max_osl or osl)

    def _prefix(self, number: int, part: MixPart, isl: int) -> tuple[int, ...]:
        if not part.num_groups:
            return ()
        group = int(self._random.random() * part.num_groups)
        first = ((number + 1) << _PART_SHIFT) + (group << _GROUP_SHIFT)
        return tuple(range(first, first + min(part.prefix_tokens, isl) // self._block_tokens))


class _Targets:
    """Makes the SLO of each request; equal ones are one object."""

    def __init__(self, spec: WorkloadSpec, unloaded_prefill_ns: Callable[[int], int] | None) -> None:
        self._spec = spec
        self._unloaded_prefill_ns = unloaded_prefill_ns
        self._known: dict[tuple[str, int], SLO] = {}

    def slo(self, priority_class: str, isl: int) -> SLO:
        targets = self._spec.slo_of(priority_class)
        key = (priority_class, isl if targets.ttft_unloaded_factor else 0)
        slo = self._known.get(key)
        if slo is None:
            slo = self._known[key] = SLO(ttft_s=self._ttft_s(targets, isl), tpot_s=targets.tpot_s)
        return slo

    def _ttft_s(self, targets: SLOSpec, isl: int) -> float | None:
        if targets.ttft_unloaded_factor is None:
            return targets.ttft_s
        assert self._unloaded_prefill_ns is not None, "these targets need a cost model"
        multiple_s = targets.ttft_unloaded_factor * self._unloaded_prefill_ns(isl) / NS_PER_S
        return max(targets.ttft_s or 0.0, multiple_s)
