"""Runs `brigade up` as a user would, as a process, and lets a test wait for what it says."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from brigade.runtime.redis_server import free_port

DEADLINE_S = 90
_END = "(end of output)"


class Installation:
    """A running `brigade up`: its address, what it has printed (stdout and stderr together), its children."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.text = ""
        self._has_ended = False
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.text += line
                self._said.notify_all()
        with self._said:
            self._has_ended = True
            self._said.notify_all()

    def wait_for(self, holds: Callable[[str], bool]) -> None:
        """Wait until the text so far fulfils a condition; fail with the text when it ends or the deadline passes."""
        with self._said:
            self._said.wait_for(lambda: holds(self.text) or self._has_ended, timeout=DEADLINE_S)
            assert holds(self.text), self.text

    def wait_until_ready(self) -> None:
        self.wait_for(lambda text: "Ctrl-C drains" in text)

    def end(self) -> int:
        """Wait for the process and the last of its output; return its exit status."""
        status = self.process.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, then as `end`."""
        self.process.send_signal(number)
        return self.end()

    def children(self) -> dict[int, str]:
        """Return process id and command line of all direct children."""
        found: dict[int, str] = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it may have just ended
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return found


def user_environment(temporary: Path) -> dict[str, str]:
    """Return this process's environment without our settings, with a temporary folder that a test can look into."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRIGADE_", "REDIS_URL"))}
    return {**kept, "TMPDIR": str(temporary)}


@contextlib.contextmanager
def brigade_up(*flags: str, env: Mapping[str, str]) -> Iterator[Installation]:
    """Run `brigade up` on a free port while the block runs; kill it at the end if it still runs."""
    port = free_port()
    command = [sys.executable, "-m", "brigade.cli", "up", "--port", str(port), *flags]
    with subprocess.Popen(
        command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        installation = Installation(process, port)
        try:
            yield installation
        finally:
            process.kill()


def refused_up(*flags: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a `brigade up` that ends by itself; return its exit status and stderr."""
    command = [sys.executable, "-m", "brigade.cli", "up", *flags]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stderr


def wait_for_death(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended, and close it."""
    try:
        assert select.select([pidfd], [], [], DEADLINE_S)[0], "the process still runs"
    finally:
        os.close(pidfd)
