"""Strict reading of a JSON object: right types, right ranges, and no field that nobody looked at.

null counts as absent, as clients with optional fields send it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from brigade.core.errors import InvalidRequest

_TYPE_NAMES: Final = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}


class Fields:
    """One JSON object that is being read; each field is taken once, and what is left over is refused."""

    def __init__(self, content: Mapping[str, Any], *, path: str = "") -> None:
        self._left = dict(content)
        self._path = path

    @classmethod
    def of(cls, value: object, *, path: str = "") -> Fields:
        """Start reading a value that must be an object."""
        if not isinstance(value, dict):
            raise InvalidRequest(f"{path or 'the body'} must be a JSON object", field=path or None)
        return cls(value, path=path)

    def name(self, key: str) -> str:
        """Return the full name of a field, as errors state it."""
        return f"{self._path}.{key}" if self._path else key

    def error(self, key: str, what: str, *, code: str | None = "invalid_value") -> InvalidRequest:
        return InvalidRequest(f"{self.name(key)} {what}", field=self.name(key), code=code)

    def take(self, key: str) -> Any:
        """Return the field's value, None where it is absent or null."""
        return self._left.pop(key, None)

    def take_bool(self, key: str, default: bool = False) -> bool:
        value = self._take_typed(key, bool)
        return default if value is None else bool(value)

    def take_str(self, key: str, *, max_chars: int) -> str | None:
        value = self._take_typed(key, str)
        if value is not None and len(value) > max_chars:
            raise self.error(key, f"must have at most {max_chars} characters")
        return None if value is None else str(value)

    def take_list(self, key: str, *, max_items: int) -> list[Any] | None:
        value = self._take_typed(key, list)
        if value is not None and len(value) > max_items:
            raise self.error(key, f"must have at most {max_items} items")
        return None if value is None else list(value)

    def take_object(self, key: str) -> Fields | None:
        value = self._take_typed(key, dict)
        return None if value is None else Fields(value, path=self.name(key))

    def take_int(self, key: str, *, low: int, high: int) -> int | None:
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, "must be an integer", code="invalid_type")
        if not low <= value <= high:
            raise self.error(key, f"must be between {low} and {high}")
        return value

    def take_float(self, key: str, *, low: float, high: float, above_low: bool = False) -> float | None:
        """Return a finite number in [low, high], or (low, high] with `above_low`."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "must be a number", code="invalid_type")
        if not math.isfinite(value) or not low <= value <= high or (above_low and value == low):
            raise self.error(key, f"must be {'above' if above_low else 'at least'} {low:g} and at most {high:g}")
        return float(value)

    def only_neutral(self, key: str, *neutral: object) -> None:
        """Accept a field that is known but not supported where its value asks for nothing; refuse it otherwise."""
        value = self.take(key)
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise self.error(key, "is not supported", code="unsupported_parameter")

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            key = min(self._left)
            raise self.error(key[:64], "is not a known field", code="unknown_parameter")

    def _take_typed(self, key: str, kind: type) -> Any:
        value = self.take(key)
        if value is not None and type(value) is not kind:
            raise self.error(key, f"must be {_TYPE_NAMES[kind]}", code="invalid_type")
        return value
