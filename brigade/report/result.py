"""A run's result as a file: what was run, where, how, its figures, and whether it may be believed. JSON, one schema."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from brigade.core.errors import ConfigError
from brigade.report.provenance import Provenance
from brigade.report.summary import RunSummary
from brigade.report.validity import Validity

FORMAT = "brigade-result/1"

Kind = Literal["real", "emulated", "simulated"]
"""Times measured on a real engine, on an emulated one, or computed by the simulator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run. `settings` are the run's own parameters, by name, as text; `requests_csv` is the file of all requests beside it.

    Figures are in model time: an emulated run's times are divided by `time_scale` already. `is_cut` marks a run that was ended
    before its last request.
    """

    kind: Kind
    name: str
    seed: int
    provenance: Provenance
    settings: Mapping[str, str]
    summary: RunSummary
    time_scale: float = 1.0
    is_cut: bool = False
    validity: Validity = field(default_factory=Validity)
    requests_csv: str | None = None
    format: str = FORMAT

    def to_json(self) -> str:
        """Return the file's text; equal results give equal bytes."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> RunResult:
        """Read what `save` wrote. Raises ConfigError naming file and field."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as a result: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ConfigError(f"{path}: is not a result of format {FORMAT!r}")
        result = _read(cls, document, str(path))
        assert isinstance(result, cls)
        return result


def _read(hint: Any, value: object, where: str) -> object:
    """Return `value` as the declared type of a field, dataclasses and all. Raises ConfigError naming `where`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (hint,) = (item for item in inner if item is not type(None))
        return _read(hint, value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be an object, not {value!r}")
        hints = typing.get_type_hints(hint)
        names = [f.name for f in fields(hint)]
        if wrong := sorted(set(names) ^ set(value)):
            raise ConfigError(f"{where}: {wrong[0]} is {'missing' if wrong[0] in names else 'unknown'}")
        return hint(**{name: _read(hints[name], value[name], f"{where}: {name}") for name in names})
    if origin is Mapping and isinstance(value, dict):
        return {str(name): _read(inner[1], item, f"{where}: {name}") for name, item in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_read(inner[0], item, f"{where}: {number}") for number, item in enumerate(value))
    if origin is Literal and value in inner:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f"{where} has a wrong value: {value!r}")
