"""One child process of the supervisor. It never outlives us: the kernel kills it when we die, however we die.

Linux only (pidfd, PR_SET_PDEATHSIG). A child leads its own session, so a Ctrl-C on the terminal reaches the supervisor
alone, which then ends its children in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 65536
_MAX_LINE_BYTES = 1 << 20
_EXIT_ORPHAN = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """A process to start. `env` is its whole environment."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)


class Child:
    """A running process whose output lines (stdout and stderr together) go to `on_line`. Made inside an event loop.

    `exited` resolves with the exit status (negative: the signal) when it has ended and been reaped.
    """

    def __init__(self, spec: ChildSpec, *, on_line: Callable[[str], None]) -> None:
        """Start it. Raises OSError when there is no such program."""
        self.spec = spec
        self.last_lines: deque[str] = deque(maxlen=20)
        self._on_line = on_line
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._process = subprocess.Popen(
            spec.argv,
            env=dict(spec.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - two system calls, no lock is taken
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        """Ask it to drain; nothing when it has ended."""
        if not self.exited.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything it started."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):  # the whole session has just ended
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            self._end_line()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._give(line)

    def _end_line(self) -> None:
        """Take what was written without a newline for a line."""
        if self._rest:
            line, self._rest = self._rest, b""
            self._give(line)

    def _give(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        self.last_lines.append(text)
        self._on_line(text)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._read_output()  # what it wrote last; a child of its own may still hold the pipe open
        self._end_line()
        self._loop.remove_reader(self._output)
        status = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.exited.set_result(status)


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a child runs before its program: have the kernel kill it when `parent` ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        if prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0 or os.getppid() != parent:
            os._exit(_EXIT_ORPHAN)

    return prepare
