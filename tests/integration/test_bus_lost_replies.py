"""Every script is called once with its reply lost, and must leave Redis as if it had been sent once (rule 4)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pytest
from support.bus_actors import TTL_S, BusActors, Owner, Worker, decode_job, part, status
from support.bus_snapshot import snapshot
from support.losing_proxy import LosingProxy

from brigade.bus.client import Bus
from brigade.bus.frames import bury_prefill_entry
from brigade.bus.inspect import queue_depths
from brigade.bus.leadership import Leadership
from brigade.bus.registry import Lease
from brigade.core.errors import BusError
from brigade.core.messages import Role
from brigade.core.request import RequestState

pytestmark = pytest.mark.usefixtures("no_key_leaks")


@dataclass
class Scene:
    """Actors whose calls go through the proxy."""

    actors: BusActors
    owner: Owner
    p: Worker
    d: Worker


Act = Callable[[], Awaitable[Any]]
Prepare = Callable[[Scene], Awaitable[Act]]
CASES: dict[str, tuple[Prepare, Any]] = {}
"""By script: what leads to the call, returning the call itself, and the answer that the caller must get (None: any)."""


def case(script: str, answer: Any = None) -> Callable[[Prepare], Prepare]:
    def enter(prepare: Prepare) -> Prepare:
        CASES[script] = (prepare, answer)
        return prepare

    return enter


@case("submit")
async def _submit(s: Scene) -> Act:
    return lambda: s.owner.submit("a", "b")


@case("window")
async def _window(s: Scene) -> Act:
    await s.owner.submit("a")
    return lambda: s.p.queue.window(64)


@case("claim")
async def _claim(s: Scene) -> Act:
    await s.owner.submit("a", "b")
    chosen = await s.p.queue.window(64)

    async def claim() -> None:
        assert len(await s.p.queue.claim(chosen)) == 2

    return claim


@case("own_prefills")
async def _own_prefills(s: Scene) -> Act:
    await s.owner.submit("a", "b")
    await s.p.claim("a")
    await s.p.claim("b")
    await s.actors.bus.command("HSET", s.actors.keys.request("b"), "attempt", 2)
    return s.p.queue.own_pending


@case("give_back")
async def _give_back(s: Scene) -> Act:
    await s.owner.submit("a")
    claimed = await s.p.claim("a")
    return lambda: s.p.queue.give_back([claimed.waiting])


@case("hand_over", "ALREADY")
async def _hand_over(s: Scene) -> Act:
    await s.owner.submit("a")
    claimed = await s.p.claim("a")
    return lambda: s.p.hand_over(claimed, s.d)


@case("admit", ["OK"])
async def _admit(s: Scene) -> Act:
    await s.owner.submit("a")
    await s.p.hand_over(await s.p.claim("a"), s.d)
    received = await s.d.receive("a")
    return lambda: s.d.decode.admit([received])


@case("step", ["ALREADY"])
async def _step(s: Scene) -> Act:
    received = await s.actors.decoding(s.owner, "a", s.p, s.d)
    return lambda: s.d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))])


@case("drop_decode", "REPORTED")
async def _drop_decode(s: Scene) -> Act:
    received = await s.actors.decoding(s.owner, "a", s.p, s.d)
    return lambda: s.d.decode.let_go(received.job, received.entry_id, "gone")


@case("migrate", "ALREADY")
async def _migrate(s: Scene) -> Act:
    received = await s.actors.decoding(s.owner, "a", s.p, s.d)
    return lambda: s.d.decode.migrate(received.entry_id, part("a", 1), "p", decode_job("a", worker_id="d"))


@case("raise", "ALREADY")
async def _raise(s: Scene) -> Act:
    await s.actors.decoding(s.owner, "a", s.p, s.d)
    return lambda: s.owner.raise_to("a", 2, prefix=[100])


@case("conclude", "FAILED")
async def _conclude(s: Scene) -> Act:
    await s.actors.decoding(s.owner, "a", s.p, s.d)
    return lambda: s.owner.store.conclude("a", attempt=1, state=RequestState.FAILED, reason="x")


@case("pending")
async def _pending(s: Scene) -> Act:
    await s.actors.decoding(s.owner, "a", s.p, s.d)
    return s.d.decode.pending_ids


@case("holders")
async def _holders(s: Scene) -> Act:
    await s.owner.submit("a")
    return lambda: s.owner.store.standings(["a", "b"])


@case("depth")
async def _depth(s: Scene) -> Act:
    await s.owner.submit("a")
    return lambda: queue_depths(s.actors.bus)


@case("register", (None, 0))
async def _register(s: Scene) -> Act:
    new = Worker(s.actors.bus, "new")
    return lambda: new.lease.register(Role.MIXED, 1, status("new"))


@case("heartbeat")
async def _heartbeat(s: Scene) -> Act:
    async def beat() -> None:
        assert (await s.p.lease.beat(status("p"), [("a", 1)], [])).lease is Lease.OK

    return beat


@case("router_heartbeat", "OK")
async def _router_heartbeat(s: Scene) -> Act:
    new = Owner(s.actors.bus, "new")
    return lambda: new.store.heartbeat(ttl_s=TTL_S, status=b"x", first=True)


@case("deregister")
async def _deregister(s: Scene) -> Act:
    return s.p.lease.deregister


@case("drain", True)
async def _drain(s: Scene) -> Act:
    return s.p.lease.start_draining


@case("switch", "OK")
async def _switch(s: Scene) -> Act:
    await s.p.lease.start_draining()
    return lambda: s.p.lease.switch(Role.DECODE, 2)


@case("lead", 1)
async def _lead(s: Scene) -> Act:
    return Leadership(s.actors.bus, "n", ttl_s=TTL_S).renew


@case("set_role", 2)
async def _set_role(s: Scene) -> Act:
    leader = Leadership(s.actors.bus, "n", ttl_s=TTL_S)
    await leader.renew()
    return lambda: leader.set_role("p", Role.DECODE, highest_epoch=1)


@case("janitor")
async def _janitor(s: Scene) -> Act:
    await s.actors.decoding(s.owner, "a", s.p, s.d)
    await s.owner.stop()
    await s.d.stop()
    return s.actors.sweep


@case("bury")
async def _bury(s: Scene) -> Act:
    await s.owner.submit("a")
    waiting = await s.p.waiting("a")
    return lambda: bury_prefill_entry(s.actors.bus, waiting.stream, waiting.entry_id, "unreadable", b"?")


@pytest.fixture
def names() -> list[str]:
    return [f"test-{secrets.token_hex(6)}" for _ in range(2)]


async def _scene(bus: Bus) -> Scene:
    actors = BusActors(bus)
    owner, p, d = await actors.owner("r1"), await actors.worker("p"), await actors.worker("d")
    return Scene(actors, owner, p, d)


def test_every_script_has_a_case() -> None:
    """A script added later must be shown to bear a lost reply."""
    scripts = {f.name.removesuffix(".lua") for f in (resources.files("brigade.bus") / "lua").iterdir()}
    assert scripts - {"common"} == CASES.keys()


@pytest.mark.parametrize("script", CASES)
async def test_a_script_whose_reply_is_lost_leaves_the_state_as_if_sent_once(
    redis_url: str, redis_server: Any, script: str, names: list[str]
) -> None:
    """Rule 4: 'already done by you' is an answer, never 'refused'; nothing is done twice."""
    prepare, answer = CASES[script]
    states = []
    async with LosingProxy(redis_server.port) as proxy:
        for name, lose in zip(names, (False, True), strict=True):
            bus = Bus(proxy.url, name, block_ms=100)
            await bus.open()
            try:
                scene = await _scene(bus)
                act = await prepare(scene)
                if lose:
                    proxy.lose_reply_to("EVALSHA")
                got = await act()
                states.append(await snapshot(bus))
                await scene.actors.wind_down()
            finally:
                await bus.close()
        assert proxy.num_lost == 1
    assert states[1] == states[0]
    if answer is not None:
        assert got == answer


async def test_a_read_whose_reply_is_lost_is_not_sent_again_and_loses_no_job(
    redis_url: str, redis_server: Any, installation: str
) -> None:
    """Rule 4: XREADGROUP `>` is not idempotent; the caller gets the error and finds its jobs by id 0."""
    async with LosingProxy(redis_server.port) as proxy:
        bus = Bus(proxy.url, installation, block_ms=100)
        await bus.open()
        s = await _scene(bus)
        await s.owner.submit("a")
        await s.p.hand_over(await s.p.claim("a"), s.d)
        proxy.lose_reply_to("XREADGROUP")
        with pytest.raises(BusError):
            await s.d.decode.read(new=True)
        assert not bus.is_settled(0)
        assert await s.d.decode.read(new=True) == []
        [received] = await s.d.decode.read(new=False)
        assert received.job.request_id == "a"
        await s.actors.wind_down()
        await bus.close()
