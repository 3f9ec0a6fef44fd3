"""Piecewise-linear durations in fixed-point integers: exact, equal on every Python, with sums of runs in closed form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

SHIFT = 24
"""Durations are kept in units of 2**-24 ns: small enough that a million tokens squared still round to the right ns."""
HALF = 1 << (SHIFT - 1)
_FEW_STEPS = 8


def fixed(duration_ns: float | int | Fraction) -> int:
    """Return a duration in fixed point, rounded once."""
    return round(Fraction(duration_ns) * (1 << SHIFT))


def whole_ns(value: int) -> int:
    """Return a fixed-point duration in nanoseconds, halves up."""
    return (value + HALF) >> SHIFT


def floor_sum(num_terms: int, slope: int, offset: int) -> int:
    """Return the sum of (slope * i + offset) >> SHIFT for i in 0 .. num_terms - 1, in time that grows with SHIFT only."""
    total, modulus = 0, 1 << SHIFT
    # Euclid: take whole parts out, then swap the roles of the axes; the lattice points below the line stay the same.
    while True:
        whole, slope = divmod(slope, modulus)
        total += whole * (num_terms * (num_terms - 1) // 2)
        whole, offset = divmod(offset, modulus)
        total += whole * num_terms
        top = slope * num_terms + offset
        if top < modulus:
            return total
        num_terms, offset = divmod(top, modulus)
        slope, modulus = modulus, slope


class Curve:
    """A duration as a function of a count: linear between knots, constant below the first, the last slope beyond the last.

    `knots` rise strictly; `values` and `last_slope` (per unit of the count) are in fixed point.
    """

    __slots__ = ("_knots", "_slopes", "_values")

    def __init__(self, knots: Sequence[int], values: Sequence[int], last_slope: int) -> None:
        assert len(knots) == len(values) >= 1
        assert all(low < high for low, high in pairwise(knots))
        slopes = [(values[i + 1] - values[i]) // (knots[i + 1] - knots[i]) for i in range(len(knots) - 1)]
        # A first segment of slope zero stands for everything below the first knot.
        self._knots = (knots[0], *knots)
        self._values = (values[0], *values)
        self._slopes = (0, *slopes, last_slope)

    @classmethod
    def line(cls, at_zero: int, slope: int) -> Curve:
        """A line over all counts from zero."""
        return cls((0,), (at_zero,), slope)

    @classmethod
    def through(cls, knots: Sequence[int], values: Sequence[int]) -> Curve:
        """Join points; beyond the last one the slope of the last segment goes on, if it rises."""
        if len(knots) == 1:
            return cls(knots, values, 0)
        return cls(knots, values, max(0, (values[-1] - values[-2]) // (knots[-1] - knots[-2])))

    def at(self, count: int) -> int:
        """Return the duration in fixed point."""
        knots = self._knots
        index = bisect_right(knots, count, 1) - 1
        return self._values[index] + self._slopes[index] * (count - knots[index])

    def sum_ns(self, first: int, stride: int, num_steps: int) -> int:
        """Return the sum of whole_ns(at(first + i * stride)) for i in 0 .. num_steps - 1."""
        if num_steps <= _FEW_STEPS:
            return sum([(self.at(first + i * stride) + HALF) >> SHIFT for i in range(num_steps)])
        knots, total = self._knots, 0
        index = bisect_right(knots, first, 1) - 1
        while num_steps > 0:
            num_here = num_steps
            if index + 1 < len(knots):
                num_here = min(num_steps, -((first - knots[index + 1]) // stride))  # steps below the next knot
            if num_here > 0:
                slope = self._slopes[index]
                start = self._values[index] + slope * (first - knots[index]) + HALF
                total += floor_sum(num_here, slope * stride, start)
                first += num_here * stride
                num_steps -= num_here
            index += 1
        return total
