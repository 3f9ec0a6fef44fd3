"""Reads fields of a JSON object strictly: each must be there, be of its kind, and be asked for. Errors name file and field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from brigade.core.errors import ConfigError

MAX_TIME_NS = 10**15
"""Eleven days: a longer step is a mistake of units."""
MAX_COUNT = 10**15


class Fields:
    """One object of a document. `path` is the dotted name of the object in it."""

    def __init__(self, value: object, *, where: str, path: str = "") -> None:
        self._where = where
        self._path = path
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {path or 'the document'} must be an object, not {_kind(value)}")
        self._value: Mapping[str, object] = value
        self._asked: set[str] = set()

    def names(self) -> list[str]:
        return list(self._value)

    def wrong(self, name: str, problem: str) -> ConfigError:
        """Return the error that a field has."""
        return ConfigError(f"{self._where}: {self._dotted(name)} {problem}")

    def finish(self) -> None:
        """Raise ConfigError for a field that nobody asked for."""
        for name in self._value:
            if name not in self._asked:
                raise self.wrong(name, f"is unknown; known here: {', '.join(sorted(self._asked))}")

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, f"must be a text, not {_kind(value)}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "must be a list of texts")
        return tuple(value)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self._take(name)
        if value not in choices:
            raise self.wrong(name, f"must be one of {', '.join(choices)}, not {value!r}")
        return str(value)

    def count(self, name: str, *, least: int = 0) -> int:
        """A whole number."""
        return self._count(name, self._take(name), least)

    def time(self, name: str) -> float:
        """A duration in nanoseconds, not negative."""
        return self._time(name, self._take(name))

    def points(self, counts_name: str, times_name: str) -> tuple[list[int], list[float]]:
        """Two lists of one length, not empty: counts that rise, and times."""
        counts = [self._count(counts_name, item, 0) for item in self._list(counts_name)]
        times = [self._time(times_name, item) for item in self._list(times_name)]
        if not counts or len(counts) != len(times):
            raise self.wrong(times_name, f"has {len(times)} values for {len(counts)} {counts_name}")
        if any(low >= high for low, high in pairwise(counts)):
            raise self.wrong(counts_name, "must rise")
        return counts, times

    def counts_by_number(self, name: str) -> Mapping[int, int]:
        """An object from whole numbers (as JSON names) to counts; empty where the field is missing."""
        self._asked.add(name)
        if name not in self._value:
            return {}
        inner = self.part(name)
        for key in inner.names():
            if not key.isdecimal():
                raise inner.wrong(key, "must be a whole number")
        return {int(key): inner.count(key, least=1) for key in inner.names()}

    def numbers(self) -> Mapping[str, float]:
        """All fields, which are finite numbers."""
        return {name: self._number(name, self._take(name)) for name in self._value}

    def part(self, name: str) -> Fields:
        return Fields(self._take(name), where=self._where, path=self._dotted(name))

    def parts(self, name: str) -> list[Fields]:
        return [
            Fields(item, where=self._where, path=f"{self._dotted(name)}[{index}]")
            for index, item in enumerate(self._list(name))
        ]

    def _take(self, name: str) -> object:
        self._asked.add(name)
        if name not in self._value:
            raise self.wrong(name, "is missing")
        return self._value[name]

    def _list(self, name: str) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, f"must be a list, not {_kind(value)}")
        return value

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not (
            isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        ):
            raise self.wrong(name, f"must be a finite number, not {_kind(value)}")
        return value

    def _count(self, name: str, value: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_COUNT:
            raise self.wrong(name, f"must be a whole number of at least {least}, not {_kind(value)}")
        return value

    def _time(self, name: str, value: object) -> float:
        number = self._number(name, value)
        if not 0 <= number <= MAX_TIME_NS:
            raise self.wrong(name, f"must be a time of 0 to {MAX_TIME_NS} ns, not {number}")
        return number

    def _dotted(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _kind(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:30]}…"
