"""Logs of a process: structlog to stderr, readable on a terminal and one JSON object per line elsewhere.

Fields bound by `bound_contextvars` (request_id above all) are on every line inside that context. The standard library's
log (aiohttp, asyncio) goes the same way at level warning and above.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from brigade.core.config import LogLevel

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def setup_logs(service: str, level: LogLevel, *, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream` (stderr when not given); call once, before the first line."""
    out = stream or sys.stderr

    def name_service(_: object, __: str, event: EventDict) -> EventDict:
        event["service"] = service  # not by context: threads start without one
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if out.isatty():
        last: list[Processor] = [structlog.dev.ConsoleRenderer()]
    else:
        last = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )

    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_drop_meta, *last], foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def _drop_meta(logger: object, name: str, event: EventDict) -> EventDict:
    """Remove what ProcessorFormatter adds for its own use."""
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)  # type: ignore[arg-type]
