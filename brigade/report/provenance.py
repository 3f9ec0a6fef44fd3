"""What a figure needs beside it: the command, the commit, the hardware, the versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import brigade


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """`taken_at` is a UTC time and empty for simulations, whose output must not depend on the hour."""

    command: str
    commit: str
    hardware: str
    python: str
    taken_at: str = ""


def provenance(argv: Sequence[str] | None = None, *, taken_at: str = "") -> Provenance:
    """Describe this process. `argv` is the command as the user typed it; the process's own when not given."""
    return Provenance(
        command=" ".join(["brigade", *(sys.argv[1:] if argv is None else argv)]),
        commit=commit(),
        hardware=hardware(),
        python=platform.python_version(),
        taken_at=taken_at,
    )


def commit() -> str:
    """Return the commit of the source tree, with `+changes` when tracked files differ from it; else the version's place."""
    root = Path(brigade.__file__).parents[1]
    if not (root / ".git").exists():
        return "not a git checkout"
    head = _git(root, "rev-parse", "--short=10", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return head + ("+changes" if changed else "")


def hardware() -> str:
    """Return number and model of the CPUs."""
    fields: dict[str, str] = {}
    num_cpus = 0
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
            num_cpus += name.strip() == "processor"
    except OSError:
        return platform.machine()
    return f"{num_cpus} CPUs, {fields.get('model name', platform.machine())} family {fields.get('cpu family', '?')}"


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return done.stdout.strip()
