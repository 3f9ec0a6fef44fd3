"""What a run says of itself: times per request, wall and CPU seconds, percentiles, and where it was taken."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """One answered request, in seconds of one clock: when it was sent and when each token was known."""

    sent_s: float
    token_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """None for an answer of one token."""
        if len(self.token_s) < 2:
            return None
        return (self.token_s[-1] - self.token_s[0]) / (len(self.token_s) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """One engine, one load, once. CPU seconds are user and system time of all threads and processes of the engine."""

    num_output_tokens: int
    num_prompt_tokens: int
    wall_s: float
    cpu_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float

    @property
    def wall_us_per_token(self) -> float:
        return self.wall_s / self.num_output_tokens * 1e6

    @property
    def cpu_us_per_token(self) -> float:
        return self.cpu_s / self.num_output_tokens * 1e6

    def as_dict(self) -> dict[str, float]:
        return {
            **asdict(self),
            "wall_us_per_token": self.wall_us_per_token,
            "cpu_us_per_token": self.cpu_us_per_token,
        }


def figures_of(times: Sequence[RequestTimes], *, num_prompt_tokens: int, wall_s: float, cpu_s: float) -> RunFigures:
    """Sum up a run."""
    ttft_ms = [item.ttft_s * 1e3 for item in times]
    tpot_ms = [item.tpot_s * 1e3 for item in times if item.tpot_s is not None]
    return RunFigures(
        num_output_tokens=sum(len(item.token_s) for item in times),
        num_prompt_tokens=num_prompt_tokens,
        wall_s=wall_s,
        cpu_s=cpu_s,
        ttft_p50_ms=percentile(ttft_ms, 50),
        ttft_p99_ms=percentile(ttft_ms, 99),
        tpot_p50_ms=percentile(tpot_ms, 50),
        tpot_p99_ms=percentile(tpot_ms, 99),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between neighbours, as numpy's default; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def own_cpu_s() -> float:
    """User and system seconds of this process with all its threads, and of its ended children."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def provenance(packages: Sequence[str]) -> dict[str, Any]:
    """What a figure needs beside it: command, time, commit, hardware, versions, and how busy the machine was."""
    return {
        "command": "python -m " + " ".join([_module_name(), *sys.argv[1:]]),
        "taken_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "hardware": _hardware(),
        "load_average_1min": round(_load_average(), 2),
        "nice": os.nice(0),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _module_name() -> str:
    spec = sys.modules["__main__"].__spec__
    return Path(sys.argv[0]).stem if spec is None else spec.name.removesuffix(".__main__")


def _commit() -> str:
    """The commit, and `+changes` when files that git knows differ from it (results themselves do not count)."""
    head = ["git", "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=False)
    if commit.returncode:
        return "not a git checkout"
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"]
    changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return commit.stdout.strip() + ("+changes" if changed else "")


def _hardware() -> str:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    special = [name for name in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if name in flags]
    num_cpus = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines())
    model = f"{fields.get('model name', platform.machine())} family {fields.get('cpu family', '?')}"
    return f"{num_cpus} CPUs, {model} ({', '.join(special)})"


def _load_average() -> float:
    return float(Path("/proc/loadavg").read_text(encoding="utf-8").split()[0])
