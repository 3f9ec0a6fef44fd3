"""Curves of a run: a picture where matplotlib is installed (the extra `plot`), always a text plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brigade.core.errors import ConfigError
from brigade.core.timeline import RequestTimeline
from brigade.report.statistics import percentile

WIDTH, HEIGHT = 60, 12
SUFFIXES = (".png", ".svg", ".txt")


def text_plot(timelines: Sequence[RequestTimeline]) -> str:
    """Return the distributions of TTFT and TPOT as text: duration upwards, percent of requests to the right."""
    parts = []
    for name, values in _series(timelines).items():
        if not values:
            continue
        columns = [percentile(values, 100 * column / (WIDTH - 1)) for column in range(WIDTH)]
        top = max(columns[-1], 1e-9)
        rows = [round((HEIGHT - 1) * value / top) for value in columns]
        parts.append(f"{name} by percent of {len(values)} requests")
        for row in range(HEIGHT - 1, -1, -1):
            label = f"{top * row / (HEIGHT - 1) * 1e3:10.1f} ms" if row in (0, HEIGHT // 2, HEIGHT - 1) else " " * 13
            parts.append(f"{label} |" + "".join("*" if r == row else " " for r in rows).rstrip())
        parts.append(" " * 14 + "+" + "-" * WIDTH)
        parts.append(" " * 15 + "0".ljust(WIDTH // 2 - 1) + "50".ljust(WIDTH // 2 - 2) + "100")
    return "\n".join(parts) + "\n"


def save_plot(path: Path, timelines: Sequence[RequestTimeline], *, title: str) -> None:
    """Write a picture (.png, .svg; needs matplotlib) or a text plot (.txt). Raises ConfigError."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a plot ends in one of {', '.join(SUFFIXES)}")
    if path.suffix == ".txt":
        path.write_text(f"{title}\n\n{text_plot(timelines)}", encoding="utf-8")
        return
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            f"{path}: pictures need matplotlib (pip install 'brigade[plot]'); a name in .txt needs nothing"
        ) from None
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 2), _series(timelines).items(), strict=True):
        axes.plot([v * 1e3 for v in values], [(i + 1) / len(values) for i in range(len(values))])
        axes.set_xlabel(f"{name} in ms (N = {len(values)})")
        axes.set_ylabel("share of requests")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path)


def _series(timelines: Sequence[RequestTimeline]) -> dict[str, list[float]]:
    complete = [t for t in timelines if t.is_complete]
    return {
        "TTFT": sorted(v for t in complete if (v := t.ttft_s) is not None),
        "TPOT": sorted(v for t in complete if (v := t.tpot_s) is not None),
    }
