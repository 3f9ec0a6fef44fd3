"""All requests of a run as CSV, one row each, times in integer nanoseconds; a name that ends in .gz is compressed."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from brigade.core.errors import ConfigError
from brigade.core.timeline import SLO, RequestTimeline

_TIMES = ("arrival_ns", "claimed_ns", "first_token_ns", "decoding_ns", "last_token_ns")
_COUNTS = ("isl", "osl", "num_cached_tokens", "attempts")
COLUMNS = ("request_id", "priority_class", "isl", "osl", *_TIMES, *_COUNTS[2:], "refused", "slo_ttft_s", "slo_tpot_s")
assert set(COLUMNS[:-2]) | {"slo"} == {f.name for f in fields(RequestTimeline)}


def write_requests(path: Path, timelines: Iterable[RequestTimeline]) -> None:
    """Write all requests in their order; equal timelines give equal bytes."""
    with _open_to_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(timeline) for timeline in timelines)


def read_requests(path: Path) -> list[RequestTimeline]:
    """Read what `write_requests` wrote. Raises ConfigError naming file, line and column."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise ConfigError(f"{path}:1: must have the columns {', '.join(COLUMNS)}")
            return [_timeline(row, f"{path}:{rows.line_num}") for row in rows]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as requests: {error}") from error


@contextmanager
def _open_to_write(path: Path) -> Iterator[io.TextIOBase]:
    if path.suffix != ".gz":
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    # Neither name nor time go into the file, so that equal runs give equal bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        with io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
            yield text


def _row(timeline: RequestTimeline) -> list[object]:
    slo = timeline.slo
    values = [getattr(timeline, name) for name in COLUMNS[:-3]]
    targets = ["" if target is None else repr(target) for target in (slo.ttft_s, slo.tpot_s)]
    return [*("" if value is None else value for value in values), int(timeline.refused), *targets]


def _timeline(row: list[str], where: str) -> RequestTimeline:
    if len(row) != len(COLUMNS):
        raise ConfigError(f"{where}: has {len(row)} columns, not {len(COLUMNS)}")
    values = dict(zip(COLUMNS, row, strict=True))
    numbers: dict[str, int | None] = {}
    for name in (*_TIMES, *_COUNTS, "refused"):
        may_be_empty = name in _TIMES and name != "arrival_ns"
        try:
            numbers[name] = None if may_be_empty and not values[name] else int(values[name])
        except ValueError:
            raise ConfigError(f"{where}: {name} must be a whole number, not {values[name]!r}") from None
    targets: list[float | None] = []
    for name in ("slo_ttft_s", "slo_tpot_s"):
        try:
            targets.append(float(values[name]) if values[name] else None)
        except ValueError:
            raise ConfigError(f"{where}: {name} must be a number, not {values[name]!r}") from None
    refused = bool(numbers.pop("refused"))
    return RequestTimeline(
        request_id=values["request_id"],
        priority_class=values["priority_class"],
        refused=refused,
        slo=SLO(ttft_s=targets[0], tpot_s=targets[1]),
        **numbers,  # type: ignore[arg-type]
    )
