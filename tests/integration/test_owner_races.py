"""The owner in rare interleavings: another server in the middle of a look, a refusal before the answer of its own script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.emulated_cluster import MODEL, EmulatedCluster, make_spec, random_prompt
from support.waiting import wait_until

from brigade.bus.inspect import request_record
from brigade.core.messages import Role


@pytest.fixture
async def cluster(
    no_key_leaks: None, redis_url: str, installation: str, tmp_path: Path
) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster


async def test_a_server_that_remembers_less_is_no_janitor(
    cluster: EmulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 2: the lease's renewal is the first to reach a server restored from before this router; the installation is
    known there. Nobody has cancelled anything: the requests start again, and no client sees an error."""
    await wait_until(lambda: cluster.owner.is_ready() != "the router is starting")
    member = await cluster.add(Role.MIXED)
    member.life.prefill.claiming.is_open = False
    spec = make_spec("kept", random_prompt(9, 1))
    [answer] = await cluster.ask(spec)
    before, run, has_changed = cluster.owner.router_id, cluster.bus.run, asyncio.Event()

    async def run_on_another_server(script: str, *args: object, **options: object) -> object:
        if script == "router_heartbeat" and not has_changed.is_set():
            has_changed.set()
            await cluster.bus.command("SREM", cluster.bus.keys.routers, before)
            cluster.bus.incarnation += 1  # as the connection that reached the other server counts it
        return await run(script, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cluster.bus, "run", run_on_another_server)
    await wait_until(has_changed.is_set)
    member.life.prefill.open(decodes_too=True)
    await cluster.check([spec], [answer])
    assert cluster.owner.router_id == before


async def test_a_refusal_that_overtakes_the_answer_of_the_submission_is_heard(
    cluster: EmulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 10: the worker says no before the owner knows that the request was recorded."""
    await cluster.add(Role.MIXED)
    await wait_until(lambda: cluster.owner.is_ready() is None)
    run, may_answer = cluster.bus.run, asyncio.Event()

    async def late_answer(script: str, *args: object, **options: object) -> object:
        reply = await run(script, *args, **options)  # type: ignore[arg-type]
        if script == "submit":
            await may_answer.wait()
        return reply

    monkeypatch.setattr(cluster.bus, "run", late_answer)
    spec = make_spec("refused", [MODEL.vocab_size])  # no worker can embed it
    [answer] = await cluster.ask(spec)
    request = cluster.owner._owned["refused"]
    on_part, num_refusals = cluster.owner._on_part, 0

    def seen(part: object) -> None:
        nonlocal num_refusals
        on_part(part)  # type: ignore[arg-type]
        num_refusals += 1

    monkeypatch.setattr(cluster.owner, "_on_part", seen)
    await wait_until(lambda: num_refusals)
    may_answer.set()
    await wait_until(lambda: request.highest_attempt > 1, deadline_s=0.2, what="the next attempt starts at once")
    await wait_until(lambda: answer.error is not None)


async def test_a_request_buried_with_its_frame_lost_is_raised(cluster: EmulatedCluster) -> None:
    """Rule 10: the record itself says that nobody has the request any more, for MAXLEN may take the frame."""
    member = await cluster.add(Role.MIXED)
    member.life.prefill.claiming.is_open = False
    spec = make_spec("buried", random_prompt(9, 2))
    [answer] = await cluster.ask(spec)
    keys = cluster.bus.keys

    async def entry_of() -> object:
        return (await cluster.bus.command("HMGET", keys.request("buried"), "stream", "entry"))[1]

    await wait_until(entry_of)
    stream, entry = await cluster.bus.command("HMGET", keys.request("buried"), "stream", "entry")
    empty_frame = b""
    await cluster.bus.run("bury", "prefill", stream, entry, "test", "unreadable", b"?", "buried", 1, empty_frame)
    member.life.prefill.open(decodes_too=True)
    await cluster.check([spec], [answer])
    record = await request_record(cluster.bus, "buried")
    assert record is not None
    assert record["attempt"] == "2"
