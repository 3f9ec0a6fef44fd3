"""`run_service` in a process of its own: what signals do, and what a failure says on stderr and in the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from brigade.core.errors import BusError, ConfigError, ModelError
from brigade.runtime.service import Stop, start_errors

DEADLINE_S = 30

PROGRAM = """
import asyncio, sys
from brigade.core.config import InstallationConfig, TimingConfig
from brigade.core.errors import ModelError
from brigade.runtime.service import run_service

async def main(stop):
{body}

sys.exit(run_service("svc", main, installation=InstallationConfig(), timing=TimingConfig(drain_deadline_s={deadline})))
"""


@contextlib.contextmanager
def service(body: str, *, drain_deadline_s: float = 20.0) -> Iterator[subprocess.Popen[str]]:
    """Run `body` as the main of a service; its stdout is for the test to read."""
    program = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "), deadline=drain_deadline_s)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of a process that is about to end."""
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains_and_the_service_ends_well(number: signal.Signals) -> None:
    """What is in flight is finished after the signal, and a drained service exits 0."""
    body = """
    print("up", flush=True)
    await stop.draining.wait()
    print("drained", 0 < stop.remaining_s() <= 20, flush=True)
    """
    with service(body) as process:
        assert read_line(process) == "up"
        process.send_signal(number)
        status, out, err = finish(process)
    assert (status, out.strip()) == (0, "drained True")
    assert json.loads(err)["event"] == "drain_started"


def test_second_signal_cancels() -> None:
    """An operator who insists is obeyed, and cancelled work still unwinds."""
    body = """
    print("up", flush=True)
    try:
        await stop.draining.wait()
        print("draining", flush=True)
        await asyncio.Event().wait()
    finally:
        print("unwound", flush=True)
    """
    with service(body) as process:
        assert read_line(process) == "up"
        process.terminate()
        assert read_line(process) == "draining"
        process.terminate()
        status, out, _ = finish(process)
    assert (status, out.strip()) == (1, "unwound")


def test_drain_deadline_cancels() -> None:
    """A drain that never ends does not hold the process."""
    with service("print('up', flush=True)\nawait asyncio.Event().wait()", drain_deadline_s=0.1) as process:
        assert read_line(process) == "up"
        process.terminate()
        status, _, err = finish(process)
    assert status == 1
    assert json.loads(err.splitlines()[-1])["reason"] == "drain deadline"


def test_error_at_start_is_one_sentence_and_no_traceback() -> None:
    """An operator's mistake is told to the operator."""
    body = """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.Event().wait())
        raise ModelError("model folder /nowhere does not exist")
    """
    with service(body) as process:
        assert finish(process) == (2, "", "svc: model folder /nowhere does not exist\n")


def test_port_in_use_is_one_sentence() -> None:
    """The second process on a port says so."""
    body = """
    first = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    await asyncio.start_server(lambda r, w: None, "127.0.0.1", first.sockets[0].getsockname()[1])
    """
    with service(body) as process:
        status, _, err = finish(process)
    assert status == 2
    assert err.startswith("svc: cannot listen: ")
    assert len(err.splitlines()) == 1


def test_bug_is_logged_with_its_traceback_and_exits_1() -> None:
    """A crash is not mistaken for a wrong setting: the supervisor starts it again."""
    with service("raise KeyError('bug')") as process:
        status, _, err = finish(process)
    assert status == 1
    line = json.loads(err)
    assert line["event"] == "service_crashed"
    assert line["service"] == "svc"
    assert line["exception"][0]["exc_type"] == "KeyError"


def test_group_with_one_bug_in_it_is_a_crash() -> None:
    """Operator's errors may not hide a bug that happened beside them."""
    errors = ExceptionGroup("", [ConfigError("a"), ExceptionGroup("", [ModelError("b")])])
    assert start_errors(errors) == ["a", "b"]
    assert start_errors(ExceptionGroup("", [BusError("a"), ValueError("b")])) == []


async def test_remaining_time_counts_from_the_first_begin() -> None:
    """A second call to begin does not lengthen the drain."""
    stop = Stop(drain_deadline_s=0.0)
    assert not stop.draining.is_set()
    stop.begin()
    stop.begin()
    async with asyncio.timeout(DEADLINE_S):
        await stop.draining.wait()
    assert stop.remaining_s() == 0.0
