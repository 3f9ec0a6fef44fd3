"""Least squares of relative errors with coefficients that are not negative, and how well they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum

import numpy as np

from brigade.profiling.stepping import Timing

MIN_GAIN = 0.8
"""A second regime must bring the squared error below this share: two straight lines fit any noise better than one."""
_MIN_BATCHES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients (ns per unit of each feature) and the sum of squared relative errors."""

    coefficients: tuple[float, ...]
    error: float


def fit_non_negative(features: Sequence[Sequence[float]], durations_ns: Sequence[float]) -> Fit:
    """Return the coefficients >= 0 that are best in relative error. Features may be constant; there are few of them.

    Tries every subset of the features: the best one whose free solution is not negative is the constrained optimum.
    """
    # A clock may be too coarse for the shortest; nothing takes less than its nanosecond.
    target = np.maximum(np.asarray(durations_ns, dtype=np.float64), 1.0)
    matrix = np.asarray(features, dtype=np.float64) / target[:, None]
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    scaled = matrix / scale
    num_features = scaled.shape[1]
    best = Fit(coefficients=(0.0,) * num_features, error=float(len(target)))
    for size in range(1, num_features + 1):
        for chosen in combinations(range(num_features), size):
            columns = scaled[:, chosen]
            found = np.linalg.lstsq(columns, np.ones(len(target)), rcond=None)[0]
            error = float(np.sum((columns @ found - 1) ** 2))
            if found.min() >= 0 and error < best.error:
                coefficients = [0.0] * num_features
                for index, value in zip(chosen, found, strict=True):
                    coefficients[index] = float(value / scale[index])
                best = Fit(coefficients=tuple(coefficients), error=error)
    return best


def fit_prefill(timings: Sequence[Timing]) -> dict[str, object]:
    """Return the linear form of prefill that fits best."""
    features = []
    for timing in timings:
        parts = timing.point.parts
        attention = sum(part.num_new_tokens * (part.num_new_tokens + 2 * part.num_context_tokens) for part in parts)
        features.append((1, timing.point.num_new_tokens, attention, len(parts)))
    fit = fit_non_negative(features, [timing.duration_ns for timing in timings])
    names = ("base_ns", "per_token_ns", "per_attention_ns", "per_sequence_ns")
    return {"form": "linear", **dict(zip(names, _rounded(fit), strict=True))}


def fit_decode(timings: Sequence[Timing]) -> dict[str, object]:
    """Return the linear form of decode that fits best: one regime, or two where that is much better."""
    batches = sorted({timing.point.batch for timing in timings})
    whole = _fit_decode_regime(timings)
    regimes = [(1, whole)]
    least = MIN_GAIN * whole.error
    for border in batches[_MIN_BATCHES : len(batches) - _MIN_BATCHES + 1]:
        small = _fit_decode_regime([timing for timing in timings if timing.point.batch < border])
        large = _fit_decode_regime([timing for timing in timings if timing.point.batch >= border])
        if small.error + large.error < least:
            least = small.error + large.error
            regimes = [(1, small), (border, large)]
    names = ("base_ns", "per_context_token_ns", "per_sequence_ns")
    return {
        "form": "linear",
        "regimes": [{"min_batch": start, **dict(zip(names, _rounded(fit), strict=True))} for start, fit in regimes],
    }


def fit_transfer(durations_ns: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return latency in ns and bytes per second for (bytes, duration in ns)."""
    fit = fit_non_negative([(1, size) for size, _ in durations_ns], [duration for _, duration in durations_ns])
    latency_ns, ns_per_byte = fit.coefficients
    return round(latency_ns), max(1, round(1e9 / ns_per_byte)) if ns_per_byte > 0 else 10**15


def residuals_of(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Sum up (model, measured) durations in ns."""
    absolute = [abs(model - measured) for model, measured in pairs]
    relative = [abs(model / max(measured, 1) - 1) for model, measured in pairs]
    return {
        "num_points": len(pairs),
        "mean_abs_ns": round(fsum(absolute) / len(pairs)),
        "max_abs_ns": round(max(absolute)),
        "mean_rel": round(fsum(relative) / len(pairs), 5),
        "max_rel": round(max(relative), 5),
    }


def _fit_decode_regime(timings: Sequence[Timing]) -> Fit:
    features = [(1, timing.point.batch * timing.point.context_tokens, timing.point.batch) for timing in timings]
    return fit_non_negative(features, [timing.duration_ns for timing in timings])


def _rounded(fit: Fit) -> list[float]:
    return [float(f"{value:.6g}") for value in fit.coefficients]
