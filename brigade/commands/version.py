"""`brigade version`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from brigade.core.errors import ConfigError


def run(argv: Sequence[str]) -> int:
    """Print the installed version."""
    if argv:
        raise ConfigError(f"takes no arguments, not {' '.join(argv)}")
    print(version("brigade"))
    return 0
