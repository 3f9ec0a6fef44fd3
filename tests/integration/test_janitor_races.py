"""The janitor after a stall that broke no connection: all heartbeats have ended, and nobody has had time to beat again."""

from __future__ import annotations

import pytest
from support.bus_actors import TTL_S, BusActors

from brigade.bus.client import Bus
from brigade.bus.janitor import Janitor
from brigade.core.messages import Role

SHORT_TTL_S = 0.05


def new_janitor(bus: Bus) -> Janitor:
    return Janitor(bus, heartbeat_ttl_s=SHORT_TTL_S, record_ttl_s=TTL_S)


async def sweep(janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> int:
    """Sweep at once; return how many processes were struck off."""
    monkeypatch.setattr(janitor, "_due_s", 0.0)
    report = await janitor.sweep_if_due()
    assert report is not None
    return report.workers_removed + report.routers_removed


async def test_who_comes_back_after_one_look_is_not_struck_off(
    actors: BusActors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 24: Redis or the whole machine stood still for a TTL. The janitor is the first to move, its lease being fine."""
    monkeypatch.setattr(actors.bus, "is_settled", lambda for_s: True)
    owner, worker = await actors.owner(), await actors.worker("w", Role.MIXED)
    await owner.submit("a")
    janitor = new_janitor(actors.bus)
    await owner.stop()
    await worker.stop()
    assert await sweep(janitor, monkeypatch) == 0
    assert await owner.store.heartbeat(ttl_s=TTL_S, status=b"", first=False) == "OK"
    await worker.start()
    assert await sweep(janitor, monkeypatch) == 0
    await worker.stop()
    assert await sweep(janitor, monkeypatch) == 0, "it came back between"
    assert await actors.queued() == [("a", 1)]


async def test_who_stays_away_for_two_looks_is_struck_off(actors: BusActors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules 13, 14: a dead process is cleaned up all the same; one that dies between the looks waits for the next."""
    monkeypatch.setattr(actors.bus, "is_settled", lambda for_s: True)
    owner, worker = await actors.owner(), await actors.worker("w", Role.MIXED)
    await owner.submit("a")
    janitor = new_janitor(actors.bus)
    await owner.stop()
    assert await sweep(janitor, monkeypatch) == 0
    await worker.stop()
    assert await sweep(janitor, monkeypatch) == 1
    assert await actors.queued() == []
    assert await sweep(janitor, monkeypatch) == 1


async def test_a_late_answer_is_a_break(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server, or a process, that stood still for a while has lost sight of the others as after a reconnect."""
    await bus.command("PING")
    since = bus.settled_since_s
    await bus.command("PING")
    assert bus.settled_since_s == since
    await bus.read(bus.keys.wake, "0", count=1, block_ms=1100)
    assert bus.settled_since_s == since, "a blocking read that waits as long as it may is no break"
    await bus.command("EVAL", "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 2 do end", 0)
    assert bus.settled_since_s > since
