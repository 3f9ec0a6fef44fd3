"""Redis stops, restarts, forgets, loads and refuses: what a bus notices, and what it answers meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.bus_actors import BusActors, Owner, Worker, part, spec
from support.redis_server import RedisServer
from support.scripted_server import ScriptedServer
from support.waiting import wait_until

from brigade.bus.client import Bus
from brigade.core.errors import BusError, ConfigError
from brigade.core.request import RequestState


@pytest.fixture
async def own_bus(own_redis_server: RedisServer, installation: str) -> AsyncIterator[Bus]:
    """A bus on a server of its own, with a short deadline for calls."""
    bus = Bus(own_redis_server.url, installation, call_timeout_s=0.6, block_ms=100)
    await bus.open()
    yield bus
    await bus.close()


async def _answers(bus: Bus) -> bool:
    try:
        await bus.command("PING")
    except BusError:
        return False
    return True


async def test_a_call_raises_bus_error_at_its_deadline_and_works_again_afterwards(
    own_bus: Bus, own_redis_server: RedisServer
) -> None:
    """A server that hangs is an outage too; the late reply must not be taken for the answer of the next call."""
    own_redis_server.pause()
    started_s = time.monotonic()
    with pytest.raises(BusError, match="did not answer"):
        await own_bus.command("ECHO", "late")
    assert 0.5 < time.monotonic() - started_s < 3
    with pytest.raises(BusError):
        await own_bus.once("ECHO", "later", timeout_s=0.1)
    own_redis_server.resume()
    assert await own_bus.command("ECHO", "now") == b"now"
    assert own_bus.incarnation == 1


async def test_a_call_outlasts_a_short_outage(own_bus: Bus, own_redis_server: RedisServer) -> None:
    """Scripts are sent again until the deadline, so a restart is a pause and no error."""
    own_redis_server.kill()
    waiting = asyncio.create_task(own_bus.command("ECHO", "x", timeout_s=20))
    await wait_until(lambda: not own_bus.is_settled(0))
    own_redis_server.start()
    assert await waiting == b"x"


async def test_settled_counts_from_the_reconnect(own_bus: Bus, own_redis_server: RedisServer) -> None:
    """After an outage nobody claims, takes over or leads until one full TTL after its own reconnect."""
    await wait_until(lambda: own_bus.is_settled(0.05))
    own_redis_server.pause()
    assert not await _answers(own_bus)
    assert not own_bus.is_settled(0)
    own_redis_server.resume()
    assert await _answers(own_bus)
    back_s = time.monotonic()
    assert not own_bus.is_settled(0.3)
    await wait_until(lambda: own_bus.is_settled(0.3))
    assert time.monotonic() - back_s > 0.2


async def test_one_lost_read_unsettles_too(own_bus: Bus, own_redis_server: RedisServer) -> None:
    """A connection that only waits notices an outage as well."""
    assert own_bus.is_settled(0)
    own_redis_server.kill()
    with pytest.raises(BusError):
        await own_bus.read(own_bus.keys.wake, "$", count=1)
    assert not own_bus.is_settled(0)


async def test_another_run_id_counts_before_any_answer_of_the_new_server_is_read(
    own_bus: Bus, own_redis_server: RedisServer
) -> None:
    """Rule 2: every reconnect of every connection compares the run id, hidden retries included."""
    seen: list[tuple[int, Any]] = []

    async def ask() -> None:
        for _ in range(3):
            answer = await own_bus.command("GET", own_bus.keys.install, timeout_s=20)
            seen.append((own_bus.incarnation, answer))

    await asyncio.gather(*[ask() for _ in range(4)])
    assert {incarnation for incarnation, _ in seen} == {1}
    seen.clear()
    own_redis_server.restart()
    await asyncio.gather(*[ask() for _ in range(4)])
    assert {answer for _, answer in seen} == {None}
    assert {incarnation for incarnation, _ in seen} == {2}


async def test_a_blocked_read_ends_with_an_error_when_its_server_is_replaced(
    own_bus: Bus, own_redis_server: RedisServer
) -> None:
    """Rule 2: a read is never carried over to another server unseen."""
    blocked = asyncio.create_task(own_bus.read(own_bus.keys.wake, "$", count=1, block_ms=20_000))

    async def is_blocked() -> bool:
        return (await own_bus.command("INFO", "clients"))["blocked_clients"] == 1

    await wait_until(is_blocked)
    own_redis_server.restart()
    with pytest.raises(BusError):
        await blocked
    assert await own_bus.command("PING", timeout_s=20)
    assert own_bus.incarnation == 2


async def test_scripts_are_loaded_again_into_a_new_server(own_bus: Bus, own_redis_server: RedisServer) -> None:
    """NOSCRIPT is no error of ours."""
    owner = await Owner(own_bus, "r1").start()
    await owner.submit("a")
    own_redis_server.restart()
    assert not await own_bus.installation_is_known()
    await owner.start()
    assert (await owner.store.standings(["a"]))[0].state is None
    await own_bus.command("SCRIPT FLUSH")
    assert await owner.raise_to("a", 2, force=True) == "RAISED"


async def test_a_flush_is_noticed_by_every_process_also_after_another_has_repaired_it(
    own_bus: Bus, own_redis_server: RedisServer, installation: str
) -> None:
    """Rule 2: the run id stays, the installation key does not; its value counts, since the first to notice writes it anew."""
    other = Bus(own_redis_server.url, installation)
    await other.open()
    assert await own_bus.installation_is_known()
    assert await other.installation_is_known()
    await own_bus.command("FLUSHALL")
    assert not await own_bus.installation_is_known()
    assert await own_bus.installation_is_known()
    assert not await other.installation_is_known()
    assert await other.installation_is_known()
    assert (own_bus.incarnation, other.incarnation) == (2, 2)
    groups = [await own_bus.command("XINFO GROUPS", own_bus.keys.queue(s)) for s in own_bus.keys.streams]
    assert [len(g) for g in groups] == [1] * len(groups)
    await other.close()


async def test_a_server_that_remembers_keeps_requests_and_claims_over_a_kill(
    new_redis_server: Callable[..., RedisServer], installation: str
) -> None:
    """With an AOF the work goes on where it was; the run id tells all the same (the last writes may be lost)."""
    server = new_redis_server(append_only=True)
    server.start()
    bus = Bus(server.url, installation, block_ms=100)
    await bus.open()
    actors = BusActors(bus)
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await owner.submit("b")
    claimed = await p.claim("b")
    server.restart()
    assert await bus.installation_is_known()
    assert bus.incarnation == 2
    assert await p.queue.own_pending() == [claimed]
    assert await d.decode.read(new=False) == [received]
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]
    owner.frames.rewind()
    assert await owner.unread() == [part("a"), part("a", 1, finish_reason="stop")]
    await owner.store.conclude("b", attempt=1, state=RequestState.CANCELLED, reason="")
    await actors.wind_down()
    await bus.close()


async def test_an_owner_brings_its_requests_back_to_a_server_that_forgot_all(
    own_bus: Bus, own_redis_server: RedisServer
) -> None:
    """Rule 2 from end to end: register, raise with leave, read from 0; old computations are refused by attempt."""
    actors = BusActors(own_bus)
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    old = await actors.decoding(owner, "a", p, d)
    assert await owner.unread() == [part("a")]
    own_redis_server.restart()
    assert not await own_bus.installation_is_known()
    assert await d.step("r1", ends=[(old, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    await owner.start()
    await Worker(own_bus, "p2").start()
    new = await Worker(own_bus, "d2").start()
    assert await owner.raise_to("a", 2, prefix=[100], force=True) == "RAISED"
    assert await new.hand_over(await new.claim("a"), new) == "DONE"
    received = await new.take("a")
    assert await d.step("r1", ends=[(old, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    assert received.spec == spec("a")
    owner.frames.rewind()
    assert await owner.unread() == [part("a", 1, attempt=2)]
    await new.step("r1", ends=[(received, part("a", 2, attempt=2, finish_reason="stop"))])
    await actors.wind_down()


@pytest.mark.parametrize(
    "refusal",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
    ],
)
async def test_a_server_that_starts_or_fails_over_gives_no_answer(refusal: str, installation: str) -> None:
    """A call is sent again until the server is ready; a single read fails; neither leaves the bus settled."""
    async with ScriptedServer() as server:
        bus = Bus(server.url, installation, call_timeout_s=5)
        server.refuse("GET", refusal, times=2)
        assert await bus.command("GET", "k") == b"value"
        assert server.num_refused == 2
        assert bus.is_settled(0)
        server.refuse("GET", refusal, times=1)
        with pytest.raises(BusError):
            await bus.once("GET", "k", timeout_s=5)
        assert not bus.is_settled(0)
        await bus.close()


async def test_a_refusal_of_ours_is_raised_at_once(own_bus: Bus) -> None:
    """A wrong command is no outage: sending it again cannot help."""
    await own_bus.command("SET", "k", "v")
    with pytest.raises(BusError, match="WRONGTYPE"):
        await own_bus.command("XLEN", "k")
    assert own_bus.is_settled(0)


async def test_a_server_that_evicts_keys_is_refused(own_redis_server: RedisServer, installation: str) -> None:
    """An evicted record is a lost request."""
    bus = Bus(own_redis_server.url, installation)
    await bus.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match="noeviction"):
        await bus.open()
    await bus.close()


async def test_a_managed_server_without_config_is_accepted(own_redis_server: RedisServer, installation: str) -> None:
    """Managed servers forbid CONFIG, by an ACL or by taking the command away."""
    admin = Bus(own_redis_server.url, installation)
    await admin.command("ACL", "SETUSER", "tenant", "on", ">secret", "~*", "+@all", "-config")
    bus = Bus(own_redis_server.url.replace("redis://", "redis://tenant:secret@"), installation)
    await bus.open()
    assert await bus.installation_is_known()
    await bus.close()
    await admin.close()
