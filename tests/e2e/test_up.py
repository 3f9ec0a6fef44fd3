"""The first command of the README for real: `brigade up` with the bundled model, a streamed answer, Ctrl-C, nothing left."""

from __future__ import annotations

import json
import os
import secrets
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.brigade_up import brigade_up, user_environment

ANSWER_S = 60


@pytest.fixture
def flags() -> tuple[str, ...]:
    """A name that no other test has, and little memory."""
    return ("--name", f"e2e-{secrets.token_hex(4)}", "--kv-memory-mb", "64", "--threads-per-worker", "1")


def shared_memory_files(flags: tuple[str, ...]) -> list[str]:
    """Return the KV pools of the installation that these flags name."""
    return sorted(name for name in os.listdir("/dev/shm") if name.startswith(f"brigade-{flags[1]}-"))


def events_of(url: str, body: dict[str, object], on_event: Callable[[int], None] = lambda _: None) -> list[str]:
    """Return the data of all SSE events of a streamed answer; `on_event` is told their number as they come."""
    request = urllib.request.Request(
        f"{url}/v1/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    events = []
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        for line in response:
            if line.startswith(b"data: "):
                events.append(line.removeprefix(b"data: ").strip().decode())
                on_event(len(events))
    return events


def text_of(events: list[str]) -> str:
    """Return the answer's text."""
    return "".join(json.loads(event)["choices"][0]["text"] for event in events if event != "[DONE]")


def finish_reason(events: list[str]) -> str | None:
    """Return why the answer ended, as its last event with a choice says."""
    choices = [choice for event in events if event != "[DONE]" for choice in json.loads(event)["choices"]]
    return choices[-1]["finish_reason"]


BODY: dict[str, object] = {"prompt": "Once upon a time", "max_tokens": 48, "temperature": 0, "ignore_eos": True}


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(("--prefill", "1", "--decode", "1"), id="1P1D"),
        pytest.param(("--mixed", "1"), id="mixed"),
    ],
)
def test_up_streams_from_the_bundled_model_and_leaves_nothing_behind(
    workers: tuple[str, ...], flags: tuple[str, ...], tmp_path: Path
) -> None:
    """What a new user does first: up, one streamed answer, Ctrl-C."""
    with brigade_up(*flags, *workers, env=user_environment(tmp_path)) as installation:
        installation.wait_until_ready()
        events = events_of(installation.url, {"model": "demo", "stream": True, **BODY})
        assert events[-1] == "[DONE]"
        assert text_of(events).strip()
        assert finish_reason(events) == "length"
        children = installation.children()
        assert shared_memory_files(flags) != []
        assert installation.stop(signal.SIGINT) == 0
    assert installation.text.endswith("brigade: stopped\n"), installation.text
    assert "starting it again" not in installation.text
    assert [command for pid, command in children.items() if Path(f"/proc/{pid}").exists()] == []
    assert shared_memory_files(flags) == []
    assert list(tmp_path.iterdir()) == []


def test_signal_in_the_middle_of_an_answer_lets_it_finish(flags: tuple[str, ...], tmp_path: Path) -> None:
    """SIGTERM drains: the client that is being served gets its whole answer."""
    with brigade_up(*flags, env=user_environment(tmp_path)) as installation:
        installation.wait_until_ready()

        def drain(num_events: int) -> None:
            if num_events == 3:
                installation.process.send_signal(signal.SIGTERM)

        events = events_of(installation.url, {"model": "demo", "stream": True, **BODY, "max_tokens": 200}, drain)
        assert events[-1] == "[DONE]"
        assert finish_reason(events) == "length"
        assert installation.end() == 0
    assert shared_memory_files(flags) == []


def test_killed_decode_worker_is_replaced_and_its_answer_goes_on(flags: tuple[str, ...], tmp_path: Path) -> None:
    """kill -9 of the only decode worker costs its client a pause, not a token."""
    body = {"model": "demo", "stream": True, **BODY, "max_tokens": 300}
    with brigade_up(*flags, "--dtype", "float32", env=user_environment(tmp_path)) as installation:
        installation.wait_until_ready()
        undisturbed = text_of(events_of(installation.url, body))

        def kill(num_events: int) -> None:
            if num_events == 3:
                (pid,) = (pid for pid, command in installation.children().items() if "services.decode" in command)
                os.kill(pid, signal.SIGKILL)

        assert text_of(events_of(installation.url, body, kill)) == undisturbed
        assert "decode-0 ended (killed by SIGKILL); starting it again" in installation.text
        assert installation.stop() == 0
    assert shared_memory_files(flags) == []
