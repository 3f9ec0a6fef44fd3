"""A result as text: a Markdown table that reads well on a terminal too."""

from __future__ import annotations

from collections.abc import Sequence

from brigade.report.result import RunResult
from brigade.report.statistics import Distribution
from brigade.report.summary import ClassSummary

_HEAD = ("", "mean", "p50", "p90", "p99", "min", "max", "samples")


def markdown(result: RunResult) -> str:
    """Return the whole report of a run."""
    summary, whole = result.summary, result.summary.all
    lines = [f"# {result.name} ({result.kind})", ""]
    if not result.validity.is_valid:
        lines += ["**This run is invalid:**", "", *(f"- {reason}" for reason in result.validity.reasons), ""]
    if result.is_cut:
        lines += ["**This run was ended early: the figures are those of the requests that had been offered.**", ""]
    lines += [
        f"N = {whole.num_requests} requests over {summary.horizon_s:.1f} s of model time: {whole.num_complete} complete, "
        f"{whole.num_refused} refused, {whole.num_failed} failed.",
        "",
        f"- offered {summary.offered_rps:.3f} req/s, throughput {summary.throughput_rps:.3f} req/s, "
        f"{summary.output_tokens_per_s:.0f} output tokens/s",
        f"- SLO attainment {whole.attainment:.2%} ({whole.num_in_slo} of {whole.num_requests}; refused and failed are "
        f"misses), goodput {summary.goodput_rps:.3f} req/s",
        "",
        *table(_HEAD, _latency_rows(whole, summary.itl)),
        "",
    ]
    if len(summary.by_class) > 1:
        head = ("class", "requests", "attainment", "TTFT p50", "TTFT p90", "TPOT p50", "TPOT p90")
        lines += [*table(head, [_class_row(name, part) for name, part in summary.by_class.items()]), ""]
    origin = result.provenance
    lines += [
        f"- command: `{origin.command}`, seed {result.seed}, time scale {result.time_scale:g}",
        f"- commit {origin.commit}, Python {origin.python}, {origin.hardware}"
        + (f", taken {origin.taken_at}" if origin.taken_at else ""),
    ]
    if result.settings:
        lines.append("- " + ", ".join(f"{name} {value}" for name, value in result.settings.items()))
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: first column to the left, numbers to the right, equal widths."""
    widths = [max(3, *(len(row[column]) for row in (head, *rows))) for column in range(len(head))]
    lines = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
             for row in (head, *rows)]  # fmt: skip
    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return ["| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:])]


def duration(seconds: float | None) -> str:
    """Return a duration for people."""
    if seconds is None:
        return "–"
    return f"{seconds:.2f} s" if abs(seconds) >= 10 else f"{seconds * 1e3:.2f} ms"


def _latency_rows(whole: ClassSummary, itl: Distribution | None) -> list[list[str]]:
    named = {"TTFT": whole.ttft, "TPOT": whole.tpot, "ITL": itl, "E2E": whole.e2e, "queue": whole.queue}
    return [
        [name, *map(duration, (d.mean_s, d.p50_s, d.p90_s, d.p99_s, d.min_s, d.max_s)), str(d.num_samples)]
        for name, d in named.items()
        if d is not None
    ]


def _class_row(name: str, part: ClassSummary) -> list[str]:
    cells = [name, str(part.num_requests), f"{part.attainment:.2%}"]
    for distribution in (part.ttft, part.tpot):
        cells += [duration(d.p50_s if d else None) for d in (distribution,)]
        cells += [duration(d.p90_s if d else None) for d in (distribution,)]
    return cells
