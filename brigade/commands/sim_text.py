"""What `brigade sim` shows: a progress bar on a terminal, tables of sweeps and searches."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from brigade.report.tables import duration, table
from brigade.sim.goodput import Goodput, RatePoint, rate_point
from brigade.sim.scenario import Scenario
from brigade.sim.study import RunFound

_BAR = 30
_SHOW_EVERY_S = 0.2


class Progress:
    """One line on stderr, on terminals only; gone when done."""

    def __init__(self, total: int, what: str = "requests") -> None:
        self._total = max(1, total)
        self._what = what
        self._is_shown = sys.stderr.isatty()
        self._start_s = time.monotonic()
        self._shown_s = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, done: int, model_ns: int | None = None) -> None:
        """Draw the bar, a few times a second at most."""
        now_s = time.monotonic()
        if not self._is_shown or now_s - self._shown_s < _SHOW_EVERY_S:
            return
        self._shown_s = now_s
        per_s = done / max(now_s - self._start_s, 1e-9)
        share = min(1.0, done / self._total)
        bar = "#" * round(_BAR * share)
        left_s = max(0, self._total - done) / per_s if per_s else 0
        at = "" if model_ns is None else f", at {model_ns / 1e9:.0f} s"
        line = (
            f"[{bar:<{_BAR}}] {done:,} of about {self._total:,} {self._what}, {per_s:,.0f}/s, {left_s:.0f} s left{at}"
        )
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def sweep_text(scenario: Scenario, found: Sequence[RunFound], *, num_asked: int) -> str:
    """Return a table of all runs, one row per rate with its seeds pooled."""
    head = ("rate req/s", "attainment", "95 % interval", "by seed", "goodput req/s", "TTFT p50", "TTFT p90", "TPOT p50",
            "TPOT p90", "N", "horizon")  # fmt: skip
    rates = list(dict.fromkeys(run.ask.rate_rps for run in found))
    rows = []
    for rate in rates:
        runs = [run for run in found if run.ask.rate_rps == rate]
        point = rate_point(rate or 0.0, runs)
        ttft = [run.summary.all.ttft for run in runs]
        tpot = [run.summary.all.tpot for run in runs]
        offered = sum(run.summary.offered_rps for run in runs) / len(runs)
        rows.append(
            [
                f"{offered:.4g}" if rate is None else f"{rate:g}",
                f"{point.attainment:.2%}",
                f"{point.low:.2%} to {point.high:.2%}",
                f"{min(point.seed_attainments):.2%} to {max(point.seed_attainments):.2%}",
                f"{sum(run.summary.goodput_rps for run in runs) / len(runs):.3f}",
                *(_median([d.p50_s for d in ttft if d]), _median([d.p90_s for d in ttft if d])),
                *(_median([d.p50_s for d in tpot if d]), _median([d.p90_s for d in tpot if d])),
                str(point.num_requests),
                f"{point.horizon_s:.0f} s",
            ]
        )
    lines = [f"# {scenario.name} (simulated)", "", *table(head, rows), ""]
    seeds = sorted({run.ask.seed for run in found})
    lines.append(
        f"Seeds {seeds}; latencies are medians over seeds; refused, failed and unfinished requests are misses."
    )
    if len(found) < num_asked:
        lines.append(f"**Ended early: {len(found)} of {num_asked} runs.**")
    unfinished = sum(run.num_unfinished for run in found)
    if unfinished:
        lines.append(f"{unfinished} requests had nobody left to serve them.")
    return "\n".join(lines) + "\n"


def goodput_text(scenario: Scenario, goodput: Goodput | None, points: Sequence[RatePoint], *, num_seeds: int) -> str:
    """Return the answer of a search and the points that it rests on."""
    head = ("rate req/s", "attainment", "95 % interval", "N", "horizon")
    rows = [
        [
            f"{p.rate_rps:g}",
            f"{p.attainment:.2%}",
            f"{p.low:.2%} to {p.high:.2%}",
            str(p.num_requests),
            f"{p.horizon_s:.0f} s",
        ]
        for p in points
    ]
    lines = [f"# {scenario.name} (simulated): goodput", ""]
    if goodput is None:
        lines.append("**Ended early: no answer, only the points below.**")
    elif not goodput.rate_rps:
        lines.append(f"No rate holds {goodput.target:.4g} attainment: even {points[0].rate_rps:g} req/s fails.")
    else:
        at_least = "at least " if goodput.is_capped else ""
        per_gpu = goodput.rate_rps / scenario.num_gpus
        nearest = min(points, key=lambda point: abs(point.rate_rps - goodput.rate_rps))
        lines.append(
            f"{goodput.target:.2%} attainment holds up to {at_least}{goodput.rate_rps:.4g} req/s "
            f"(interval {goodput.low_rps:.4g} to {goodput.high_rps:.4g}), {per_gpu:.4g} req/s/GPU on {scenario.num_gpus} GPUs, "
            f"with N = {nearest.num_requests} requests of {num_seeds} seeds over {nearest.horizon_s:.0f} s."
        )
    lines += ["", *table(head, rows), ""]
    lines.append(
        "Intervals are Wilson's, as if requests were independent. Transients count: N and horizon belong to the answer."
    )
    return "\n".join(lines) + "\n"


def point_line(point: RatePoint) -> str:
    """Return one line about a point just run."""
    return f"{point.rate_rps:g} req/s: {point.attainment:.2%} of {point.num_requests} in {point.horizon_s:.0f} s"


def _median(values: Sequence[float]) -> str:
    return duration(sorted(values)[len(values) // 2] if values else None)
