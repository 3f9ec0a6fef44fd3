"""Runs one service process: signals, drain, and what a failure to start says.

First SIGTERM or SIGINT: `stop.draining` is set and the service finishes what is in flight. A second signal, or the
drain deadline: it is cancelled and the process exits 1; the owners of unfinished work start it again elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator

import structlog

from brigade.core.config import InstallationConfig, TimingConfig
from brigade.core.errors import BrigadeError
from brigade.runtime.logs import setup_logs
from brigade.runtime.service_args import EXIT_UNAVAILABLE, EXIT_WRONG_SETTING

EXIT_FORCED = 1
EXIT_CRASHED = 1

CANCEL_GRACE_S = 5.0
"""How long a cancelled service may take to unwind before its process is ended."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ADDRESS_ERRORS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


class Stop:
    """Tells a service to leave. Made by `run_service`, one per process."""

    def __init__(self, *, drain_deadline_s: float) -> None:
        self.draining = asyncio.Event()
        self.drain_deadline_s = drain_deadline_s
        self._drained_by_s: float | None = None

    def begin(self) -> None:
        """Start the drain: `draining` is set, and `remaining_s` counts down."""
        if self._drained_by_s is None:
            self._drained_by_s = asyncio.get_running_loop().time() + self.drain_deadline_s
            self.draining.set()

    def remaining_s(self) -> float:
        """Return the seconds left to drain: the whole deadline before the drain begins, never below zero."""
        if self._drained_by_s is None:
            return self.drain_deadline_s
        return max(0.0, self._drained_by_s - asyncio.get_running_loop().time())


Main = Callable[[Stop], Awaitable[None]]


def run_service(name: str, main: Main, *, installation: InstallationConfig, timing: TimingConfig) -> int:
    """Run `main` on a new event loop until it returns, and return the exit status of the process.

    0: `main` returned. 1: it was forced out, or crashed (traceback in the log). 2: it raised a BrigadeError or could
    not listen on its address; that sentence alone goes to stderr. 3: the same, but trying again may help. `main` keeps
    its tasks in a TaskGroup, watches `stop.draining` and returns when it has drained.
    """
    setup_logs(name, installation.log_level)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_supervise(main, Stop(drain_deadline_s=timing.drain_deadline_s)))
    except Exception as error:  # noqa: BLE001 - the last stop of every error: said once, then the process ends
        sentences = start_errors(error)
        if sentences:
            for sentence in sentences:
                print(f"{name}: {sentence}", file=sys.stderr)
            return EXIT_UNAVAILABLE if is_retryable(error) else EXIT_WRONG_SETTING
        structlog.get_logger().error("service_crashed", exc_info=error)
        return EXIT_CRASHED


async def _supervise(main: Main, stop: Stop) -> int:
    """Run `main` under the signal handlers; return the exit status, or raise what `main` raised."""
    loop = asyncio.get_running_loop()
    log = structlog.get_logger()
    task = asyncio.ensure_future(main(stop))
    forced: list[str] = []

    def force(reason: str) -> None:
        if not forced:
            forced.append(reason)
            log.warning("drain_forced", reason=reason)
            end = threading.Timer(CANCEL_GRACE_S, os._exit, args=(EXIT_FORCED,))
            end.daemon = True
            end.start()
            task.cancel()

    def on_signal(received: signal.Signals) -> None:
        if stop.draining.is_set():
            force(f"second signal ({received.name})")
            return
        log.info("drain_started", signal=received.name, deadline_s=stop.drain_deadline_s)
        stop.begin()
        loop.call_later(stop.drain_deadline_s, force, "drain deadline")

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        if not forced:
            raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    return EXIT_FORCED if forced else 0


def start_errors(error: BaseException) -> list[str]:
    """Return one sentence per error when all of `error` (a group, perhaps) are an operator's to mend; else nothing."""
    leaves = list(_leaves(error))
    if not all(isinstance(leaf, BrigadeError) or _is_address_error(leaf) for leaf in leaves):
        return []
    return [str(leaf) if isinstance(leaf, BrigadeError) else f"cannot listen: {leaf}" for leaf in leaves]


def is_retryable(error: BaseException) -> bool:
    """Whether every error inside `error` says that trying again may help."""
    return all(isinstance(leaf, BrigadeError) and leaf.retryable for leaf in _leaves(error))


def _is_address_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _ADDRESS_ERRORS


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside nested exception groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop when it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
