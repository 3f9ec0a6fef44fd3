"""The highest rate at which a share of requests meets its SLO, by bisection, with an interval.

A published goodput means nothing without N and horizon: a queue that grows without bound looks fine for the first hundred
requests. Both come with every answer here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brigade.sim.scenario import WorkerSpec
from brigade.sim.study import RunAsk, RunFound, Runner

Z_95 = 1.959963984540054
MAX_DOUBLINGS = 12


def wilson_interval(num_in: int, num: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a share, 95 % by default; (0, 1) of nothing."""
    if not num:
        return 0.0, 1.0
    share = num_in / num
    middle = share + z * z / (2 * num)
    spread = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    low, high = (middle - spread) / (1 + z * z / num), (middle + spread) / (1 + z * z / num)
    return (low if num_in else 0.0), (high if num_in < num else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """All seeds of one rate together. `low` and `high` bound the attainment (Wilson, 95 %, as if requests were independent:
    queues make them less so, `seed_attainments` show how much)."""

    rate_rps: float
    num_requests: int
    num_in_slo: int
    low: float
    high: float
    seed_attainments: tuple[float, ...]
    horizon_s: float

    @property
    def attainment(self) -> float:
        return self.num_in_slo / self.num_requests if self.num_requests else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """`rate_rps` is the highest rate found to hold `target`; at `low_rps` even the lower bound holds it, above `high_rps` not
    even the upper one does. 0 where no rate does; `is_capped` where the search ended before one failed."""

    target: float
    rate_rps: float
    low_rps: float
    high_rps: float
    is_capped: bool
    points: tuple[RatePoint, ...]


def rate_point(rate_rps: float, runs: Sequence[RunFound]) -> RatePoint:
    """Pool the runs of one rate."""
    num = sum(run.summary.all.num_requests for run in runs)
    num_in = sum(run.summary.all.num_in_slo for run in runs)
    low, high = wilson_interval(num_in, num)
    return RatePoint(
        rate_rps=rate_rps,
        num_requests=num,
        num_in_slo=num_in,
        low=low,
        high=high,
        seed_attainments=tuple(run.summary.all.attainment for run in runs),
        horizon_s=max(run.summary.horizon_s for run in runs),
    )


class GoodputSearch:
    """Remembers what it has run, so the three searches of one answer share their points."""

    def __init__(
        self,
        runner: Runner,
        seeds: Sequence[int],
        on_point: Callable[[RatePoint], None] | None = None,
        *,
        workers: tuple[WorkerSpec, ...] | None = None,
    ) -> None:
        """`workers` are another cluster than the scenario's own."""
        self._runner = runner
        self._workers = workers
        self._seeds = tuple(seeds)
        self._on_point = on_point
        self._points: dict[float, RatePoint] = {}

    @property
    def points(self) -> tuple[RatePoint, ...]:
        """All points so far, by rate."""
        return tuple(self._points[rate] for rate in sorted(self._points))

    def point(self, rate_rps: float) -> RatePoint:
        """Run all seeds at a rate, once."""
        if rate_rps not in self._points:
            runs = list(self._runner.run(self._asks(rate_rps)))
            self._points[rate_rps] = rate_point(rate_rps, runs)
            if self._on_point is not None:
                self._on_point(self._points[rate_rps])
        return self._points[rate_rps]

    def _asks(self, rate_rps: float) -> list[RunAsk]:
        return [RunAsk(seed=seed, rate_rps=rate_rps, workers=self._workers) for seed in self._seeds]

    def goodput(self, target: float, start_rps: float, *, tolerance: float = 0.01) -> Goodput:
        """Search to within a share `tolerance` of the rate."""
        rate, is_capped = self._highest(lambda point: point.attainment >= target, start_rps, tolerance)
        low, _ = self._highest(lambda point: point.low >= target, rate or start_rps, tolerance)
        high, _ = self._highest(lambda point: point.high >= target, rate or start_rps, tolerance)
        return Goodput(
            target=target,
            rate_rps=rate,
            low_rps=min(low, rate),
            high_rps=max(high, rate),
            is_capped=is_capped,
            points=self.points,
        )

    def _highest(self, holds: Callable[[RatePoint], bool], start_rps: float, tolerance: float) -> tuple[float, bool]:
        """Return the highest rate that holds, and whether none that fails was found above it."""
        good, bad = 0.0, math.inf
        for point in self._points.values():  # what is known already brackets the answer
            if holds(point):
                good = max(good, point.rate_rps)
        for point in self._points.values():
            if not holds(point) and point.rate_rps > good:
                bad = min(bad, point.rate_rps)
        rate, num_doublings = (start_rps if not good else good * 2), 0
        while bad == math.inf or good == 0.0:
            if num_doublings == MAX_DOUBLINGS:
                return good, good > 0
            num_doublings += 1
            if bad < math.inf:
                rate = bad / 2
            if holds(self.point(rate)):
                good, rate = rate, rate * 2
            else:
                bad = rate
        while bad - good > tolerance * good:
            middle = _rounded((good + bad) / 2)
            if not good < middle < bad:
                break
            if holds(self.point(middle)):
                good = middle
            else:
                bad = middle
        return good, False


def _rounded(rate_rps: float) -> float:
    """Return the rate with four significant digits: readable, and met again by other searches."""
    return float(f"{rate_rps:.4g}")
