"""Reading one JSON object from a file of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brigade.core.errors import ModelError


def read_json_object(path: Path, *, needed: bool = False) -> Mapping[str, Any]:
    """Return the object in a file, an empty one for a missing file that is not needed. Raises ModelError."""
    if not path.is_file():
        if needed:
            raise ModelError(f"{path} is missing")
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold one JSON object")
    return content
