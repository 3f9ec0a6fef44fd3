"""`brigade compare`: two results beside each other, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brigade.core.errors import ConfigError
from brigade.core.settings import make_parser
from brigade.core.timeline import RequestTimeline
from brigade.report import RunResult
from brigade.report.compare import compare, markdown
from brigade.report.requests_csv import read_requests


def run(argv: Sequence[str]) -> int:
    """Print the comparison. Raises ConfigError."""
    parser = make_parser("brigade compare", "Compare two results that were saved with --json and --csv.")
    parser.add_argument("first", type=Path, help="result file (JSON) that the ratios divide by")
    parser.add_argument("second", type=Path, help="the other one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default %(default)s)")
    args = parser.parse_args(argv)
    results, timelines = [], []
    for path in (args.first, args.second):
        result = RunResult.load(path)
        results.append(result)
        timelines.append(_requests_of(path, result))
    for path, result in zip((args.first, args.second), results, strict=True):
        for reason in result.validity.reasons:
            print(f"**{path} is an invalid run: {reason}**")
        if result.is_cut:
            print(f"**{path} was ended early**")
    names = [f"{path.stem} ({result.kind})" for path, result in zip((args.first, args.second), results, strict=True)]
    print(markdown(compare(*timelines, seed=args.seed), *names))
    return 0


def _requests_of(path: Path, result: RunResult) -> list[RequestTimeline]:
    if result.requests_csv is None:
        raise ConfigError(f"{path} names no file of its requests: run it again with --csv")
    timelines = read_requests(path.parent / result.requests_csv)
    if not timelines:
        raise ConfigError(f"{path.parent / result.requests_csv} has no requests")
    return timelines
