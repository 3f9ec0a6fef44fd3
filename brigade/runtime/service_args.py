"""The command line of one service, made from its configuration parts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from brigade.core.errors import ConfigError
from brigade.core.settings import Sources, add_flags, make_parser

EXIT_WRONG_SETTING = 2
"""Exit status of a process that a wrong setting, model or address kept from starting: starting it again cannot help."""

EXIT_UNAVAILABLE = 3
"""Exit status of a process that missed something it needs (Redis, above all): starting it again later may help."""


def parse_service_args(
    prog: str, *parts: type, argv: Sequence[str] | None = None, fixed: Mapping[str, str] | None = None
) -> tuple[Any, ...]:
    """Return one instance per part, from file < environment < flags; on a wrong setting say so on stderr and exit 2.

    `fixed` maps field names to values that are not a choice of the caller (the role of `python -m services.prefill`).
    """
    parser = make_parser(prog)
    try:
        add_flags(parser, parts, fixed=tuple(fixed or ()))
        sources = Sources.of(parts, args=parser.parse_args(argv), env=os.environ).with_flags(**(fixed or {}))
        return tuple(sources.load(part) for part in parts)
    except ConfigError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_WRONG_SETTING) from None
