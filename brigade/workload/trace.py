"""Reads traces: CSV, plain or gzip, with the columns of `COLUMNS`. A broken row is one sentence with file, line and field."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brigade.core.errors import ConfigError

COLUMNS = ("arrival_s", "input_tokens", "output_tokens", "prefix_hash_ids", "source")
"""`arrival_s` counts from the first request and is empty in files of lengths; the last two columns may be missing."""

TRACE_PREFIX_BLOCK_TOKENS = 512
"""Tokens that one id of `prefix_hash_ids` stands for; equal leading ids are a shared prefix."""

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace. `arrival_ns` is None in files of lengths."""

    arrival_ns: int | None
    isl: int
    osl: int
    prefix_ids: tuple[int, ...] = ()


def read_trace(path: str) -> list[TraceRow]:
    """Return all rows. Raises ConfigError; arrivals must not go back, and all rows have one or none has."""
    try:
        with _open(path) as lines:
            rows = list(_rows(path, csv.reader(lines)))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a trace: {error}") from error
    if not rows:
        raise ConfigError(f"{path}: has no rows")
    return rows


def _open(path: str):  # type: ignore[no-untyped-def]
    if Path(path).suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return open(path, encoding="utf-8", newline="")


def _rows(path: str, reader: Iterator[list[str]]) -> Iterator[TraceRow]:
    header = next(reader, [])
    for name in COLUMNS[:3]:
        if name not in header:
            raise ConfigError(f"{path}:1: column {name} is missing; the first line must name the columns")
    for name in header:
        if name not in COLUMNS:
            raise ConfigError(f"{path}:1: column {name!r} is not known; known are: {', '.join(COLUMNS)}")
    at = {name: header.index(name) for name in header}
    prefix_at = at.get("prefix_hash_ids")
    last_ns: int | None = None
    for line, fields in enumerate(reader, start=2):
        if len(fields) != len(header):
            raise ConfigError(f"{path}:{line}: has {len(fields)} fields instead of {len(header)}")
        arrival_ns = _arrival(path, line, fields[at["arrival_s"]])
        if line > 2 and (arrival_ns is None) != (last_ns is None):
            raise ConfigError(f"{path}:{line}: arrival_s must be in every row or in none")
        if arrival_ns is not None and last_ns is not None and arrival_ns < last_ns:
            raise ConfigError(
                f"{path}:{line}: arrival_s goes back, from {last_ns / NS_PER_S:g} s to {fields[at['arrival_s']]}"
            )
        last_ns = arrival_ns
        yield TraceRow(
            arrival_ns,
            _count(path, line, "input_tokens", fields[at["input_tokens"]]),
            _count(path, line, "output_tokens", fields[at["output_tokens"]]),
            _ids(path, line, fields[prefix_at]) if prefix_at is not None else (),
        )


def _arrival(path: str, line: int, text: str) -> int | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{path}:{line}: arrival_s must be seconds of at least 0, not {text!r}")
    return round(value * NS_PER_S)


def _count(path: str, line: int, name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigError(f"{path}:{line}: {name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def _ids(path: str, line: int, text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split()))
    except ValueError:
        raise ConfigError(f"{path}:{line}: prefix_hash_ids must be whole numbers with spaces, not {text!r}") from None
