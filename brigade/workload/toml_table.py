"""Reads a TOML file strictly: every error is one sentence that names file, line and field; nothing unknown is accepted."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brigade.core.errors import ConfigError

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlFile:
    """The text is kept to name lines in errors."""

    path: str
    text: str
    top: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> TomlFile:
        """Raise ConfigError when the file is missing or malformed."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls(path=path, text=text, top=tomllib.loads(text))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: is not TOML: {error}") from error

    def root(self) -> Table:
        return Table(self, "", 0, self.top)

    def line_of(self, header: str, number: int, key: str | None) -> int | None:
        """Return the line of a key in the `number`th table called `header` (0 counts the first), or of the table itself."""
        current, seen, at_table = "", {"": 0}, 0 if header == "" else None
        for line_number, line in enumerate(self.text.splitlines(), start=1):
            match = _HEADER.match(line)
            if match:
                current = match.group(2).replace('"', "").replace(" ", "")
                seen[current] = seen.get(current, -1) + 1
                if current == header and seen[current] == number:
                    at_table = line_number
                    if key is None:
                        return line_number
            elif key is not None and current == header and seen[current] == number and _sets(line, key):
                return line_number
        return at_table or None


def _sets(line: str, key: str) -> bool:
    return re.match(rf'\s*"?{re.escape(key)}"?\s*[=.]', line) is not None


class Table:
    """One table. `take_…` reads a key and ticks it off; `finish` refuses what was not asked for."""

    def __init__(self, file: TomlFile, header: str, number: int, values: dict[str, Any]) -> None:
        self._file = file
        self._header = header
        self._number = number
        self._values = values
        self._asked: dict[str, None] = {}

    def error(self, key: str | None, message: str) -> ConfigError:
        """Return the error that names where `key` stands."""
        line = self._file.line_of(self._header, self._number, key)
        place = self._file.path if line is None else f"{self._file.path}:{line}"
        name = ".".join(part for part in (self._header, key) if part)
        return ConfigError(f"{place}: {name} {message}" if name else f"{place}: {message}")

    def has(self, key: str) -> bool:
        return key in self._values

    def take_int(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"must be a whole number of at least {least}, not {value!r}")
        return value

    def take_float(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """Return a finite number above `above`."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(key, f"must be a number, not {value!r}")
        if value <= above:
            raise self.error(key, f"must be above {above:g}, not {value!r}")
        return float(value)

    def take_share(self, key: str, default: float | None = None) -> float:
        """Return a number from 0 to 1."""
        value = self.take_float(key, default)
        if not 0 <= value <= 1:
            raise self.error(key, f"must be from 0 to 1, not {value!r}")
        return value

    def take_text(self, key: str, default: str | None = None, *, among: Collection[str] = ()) -> str:
        """Return a text, one of `among` where given."""
        value = self._take(key, default)
        if not isinstance(value, str) or (not value and default != ""):
            raise self.error(key, f"must be a text, not {value!r}")
        if among and value not in among:
            raise self.error(key, f"must be one of {', '.join(among)}, not {value!r}")
        return value

    def take_bool(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def take_path(self, key: str) -> str:
        """Return a path; a relative one counts from the file's folder."""
        return str(Path(self._file.path).parent / self.take_text(key))

    def take_table(self, key: str) -> Table | None:
        """Return a table inside this one, or None."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table, not {value!r}")
        return Table(self._file, self._inner(key), 0, value) if key in self._values else None

    def take_tables(self, key: str) -> list[Table]:
        """Return the tables of an array of tables; none where there is none."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(key, f"must be an array of tables, written [[{self._inner(key)}]]")
        return [Table(self._file, self._inner(key), number, item) for number, item in enumerate(value)]

    def take_shares(self, key: str, names: Collection[str]) -> dict[str, float]:
        """Return a table of weights by name."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a table of weights, not {value!r}")
        for name, weight in value.items():
            if name not in names:
                raise self.error(key, f"names {name!r}, which is none of {', '.join(names)}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise self.error(key, f"must give weights of at least 0, not {name} = {weight!r}")
        return {name: float(weight) for name, weight in value.items()}

    def take_nothing(self, key: str) -> None:
        """Tick off a key that may be absent, so that errors list it as known."""
        self._asked[key] = None

    def finish(self) -> None:
        """Raise ConfigError for the first key that nothing asked for."""
        for key in self._values:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                raise self.error(key, f"is not known here; known are: {known}")

    def _inner(self, key: str) -> str:
        return f"{self._header}.{key}" if self._header else key

    def _take(self, key: str, default: Any) -> Any:
        self._asked[key] = None
        if key in self._values:
            return self._values[key]
        if default is None:
            raise self.error(key, "is missing")
        return default
