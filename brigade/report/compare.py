"""Two runs beside each other: ratios of their figures with bootstrap intervals.

Requests near each other share queues, so blocks of consecutive requests are drawn, not single ones. Runs of the same workload
(the same requests in the same order) are drawn in pairs, which takes the workload's own chance out of the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brigade.core.timeline import RequestTimeline
from brigade.report.summary import horizon_of
from brigade.report.tables import duration, table

CONFIDENCE = 0.95
MAX_RESAMPLES, MAX_DRAWS, MIN_RESAMPLES = 1000, 20_000_000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`second / first` of one figure with its interval; NaN where a figure is missing or the first is zero."""

    name: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    is_duration: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`is_paired`: both runs had the same requests."""

    ratios: tuple[Ratio, ...]
    is_paired: bool
    num_first: int
    num_second: int
    num_resamples: int
    seed: int


def compare(
    first: Sequence[RequestTimeline],
    second: Sequence[RequestTimeline],
    *,
    seed: int = 0,
    max_resamples: int = MAX_RESAMPLES,
) -> Comparison:
    """Compare two runs of at least one request each; timelines in order of arrival."""
    assert first, "a run without requests"
    assert second, "a run without requests"
    samples = _Samples(first), _Samples(second)
    is_paired = [(t.isl, t.priority_class) for t in first] == [(t.isl, t.priority_class) for t in second]
    num_resamples = max(MIN_RESAMPLES, min(max_resamples, MAX_DRAWS // max(len(first), len(second))))
    chance = np.random.default_rng(seed)
    draws: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(num_resamples):
        picked = _draw_blocks(len(first), chance)
        other = picked if is_paired else _draw_blocks(len(second), chance)
        draws.append((samples[0].figures(picked), samples[1].figures(other)))
    whole = samples[0].figures(None), samples[1].figures(None)
    ratios = []
    for name in whole[0]:
        drawn = [_divide(b[name], a[name]) for a, b in draws]
        known = sorted(value for value in drawn if math.isfinite(value))
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(np.quantile(known, q)) if known else math.nan for q in (tail, 1 - tail))
        ratios.append(
            Ratio(
                name=name,
                first=whole[0][name],
                second=whole[1][name],
                ratio=_divide(whole[1][name], whole[0][name]),
                low=low,
                high=high,
                is_duration=name.split()[0] in ("TTFT", "TPOT", "E2E"),
            )
        )
    return Comparison(
        ratios=tuple(ratios),
        is_paired=is_paired,
        num_first=len(first),
        num_second=len(second),
        num_resamples=num_resamples,
        seed=seed,
    )


def markdown(comparison: Comparison, first_name: str, second_name: str) -> str:
    """Return the comparison as a table."""
    rows = []
    for r in comparison.ratios:
        values = [duration(v) if r.is_duration and not math.isnan(v) else f"{v:.4g}" for v in (r.first, r.second)]
        rows.append([r.name, *values, f"{r.ratio:.3f}", f"{r.low:.3f} to {r.high:.3f}"])
    pairs = "the same requests, drawn in pairs" if comparison.is_paired else "different requests, drawn apart"
    lines = [
        *table(("", first_name, second_name, "ratio", f"{CONFIDENCE:.0%} interval"), rows),
        "",
        f"N = {comparison.num_first} and {comparison.num_second}; ratio is {second_name} / {first_name}; "
        f"{comparison.num_resamples} bootstrap draws of blocks of requests ({pairs}), seed {comparison.seed}.",
    ]
    return "\n".join(lines) + "\n"


class _Samples:
    """The values of one run as arrays in order of arrival; NaN where a request has none."""

    def __init__(self, timelines: Sequence[RequestTimeline]) -> None:
        nan = math.nan
        self._ttft = np.array([t.ttft_s if t.is_complete and t.ttft_s is not None else nan for t in timelines])
        self._tpot = np.array([t.tpot_s if t.is_complete and t.tpot_s is not None else nan for t in timelines])
        self._e2e = np.array([t.e2e_s if t.is_complete and t.e2e_s is not None else nan for t in timelines])
        self._in_slo = np.array([float(t.meets_slo) for t in timelines])
        self._tokens = np.array([float(t.osl) for t in timelines])
        self._horizon_s = horizon_of(timelines) / 1e9 or nan

    def figures(self, picked: NDArray[np.int64] | None) -> dict[str, float]:
        """Return the figures of the drawn requests, or of all."""
        chosen: slice | NDArray[np.int64] = slice(None) if picked is None else picked
        found: dict[str, float] = {}
        for name, values in (("TTFT", self._ttft), ("TPOT", self._tpot), ("E2E", self._e2e)):
            known = values[chosen]
            known = known[~np.isnan(known)]
            quantiles = np.quantile(known, (0.5, 0.9, 0.99)) if known.size else (math.nan,) * 3
            found[f"{name} mean"] = float(known.mean()) if known.size else math.nan
            for which, value in zip(("p50", "p90", "p99"), quantiles, strict=True):
                found[f"{name} {which}"] = float(value)
        found["attainment"] = float(self._in_slo[chosen].mean())
        found["goodput req/s"] = float(self._in_slo[chosen].sum()) / self._horizon_s
        found["output tokens/s"] = float(self._tokens[chosen].sum()) / self._horizon_s
        return found


def _draw_blocks(num: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Return `num` places in blocks of about the cube root of `num`, blocks drawn with replacement, around the end."""
    size = max(1, round(num ** (1 / 3)))
    starts = chance.integers(0, num, -(-num // size))
    places: NDArray[np.int64] = ((starts[:, None] + np.arange(size)) % num).ravel()[:num]
    return places


def _divide(above: float, below: float) -> float:
    return above / below if below else math.nan
