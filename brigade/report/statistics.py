"""Percentiles and means of samples, computed so that they are the same on every Python: integers, or `math.fsum`."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from brigade.core.timeline import NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """`num_samples` durations in seconds. Percentiles lie linearly between neighbours, as numpy's default has it."""

    num_samples: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    min_s: float
    max_s: float

    @classmethod
    def of(cls, samples_s: Iterable[float]) -> Distribution | None:
        """Return the distribution of samples; None of none."""
        ordered = sorted(samples_s)
        if not ordered:
            return None
        return cls(
            num_samples=len(ordered),
            mean_s=math.fsum(ordered) / len(ordered),
            p50_s=percentile(ordered, 50),
            p90_s=percentile(ordered, 90),
            p99_s=percentile(ordered, 99),
            min_s=ordered[0],
            max_s=ordered[-1],
        )

    @classmethod
    def of_counts(cls, counts: Mapping[int, int]) -> Distribution | None:
        """Return the distribution of durations in nanoseconds that came so many times each; None of none."""
        durations = sorted(duration for duration, count in counts.items() if count)
        if not durations:
            return None
        ends = list(accumulate(counts[duration] for duration in durations))
        num = ends[-1]
        return cls(
            num_samples=num,
            mean_s=sum(duration * counts[duration] for duration in durations) / num / NS_PER_S,
            p50_s=_percentile_of_counts(durations, ends, 50) / NS_PER_S,
            p90_s=_percentile_of_counts(durations, ends, 90) / NS_PER_S,
            p99_s=_percentile_of_counts(durations, ends, 99) / NS_PER_S,
            min_s=durations[0] / NS_PER_S,
            max_s=durations[-1] / NS_PER_S,
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the percentile of sorted values (at least one), linear between neighbours."""
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _percentile_of_counts(durations: Sequence[int], ends: Sequence[int], percent: float) -> float:
    place = (ends[-1] - 1) * percent / 100
    below = int(place)
    low = durations[bisect_right(ends, below)]
    high = durations[bisect_right(ends, min(below + 1, ends[-1] - 1))]
    return low + (high - low) * (place - below)
