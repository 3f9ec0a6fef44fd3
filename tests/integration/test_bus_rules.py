"""Rules that span several scripts, and the index: every rule of the protocol is named by a test of the bus."""

from __future__ import annotations

import re
from pathlib import Path

from support.bus_actors import TTL_S, BusActors, part, spec

from brigade.core.request import RequestState

NOT_OF_THE_BUS = {17}
"""17 bounds blocks lent to others: a matter of the worker's ledger, no script knows of it."""


def test_every_rule_is_named_by_a_test_of_the_bus() -> None:
    """A rule without a test is a wish."""
    named: set[int] = set()
    for path in Path(__file__).parent.glob("test_bus_*.py"):
        for numbers in re.findall(r"Rules? ((?:\d+[a-f]?(?:, | and )?)+)(?! to)", path.read_text(encoding="utf-8")):
            named |= {int(number) for number in re.findall(r"\d+", numbers)}
    assert set(range(1, 22)) - named - NOT_OF_THE_BUS == set()


async def test_a_lost_last_frame_is_seen_by_the_record_and_the_cursor_and_reopened(actors: BusActors) -> None:
    """Rule 15: FINISHED with nothing left to read and the answer incomplete is a gap; the owner raises with leave."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    assert await owner.unread() == [part("a")]
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]
    newest = await owner.frames.last_id()
    assert not owner.frames.has_passed(newest)
    await actors.bus.command("XDEL", actors.keys.tokens("r1"), newest)  # as MAXLEN takes a frame
    [standing] = await owner.store.standings(["a"])
    assert standing.state is RequestState.FINISHED
    assert owner.frames.has_passed(await owner.frames.last_id())
    assert await owner.raise_to("a", 2, prefix=[100], force=True) == "RAISED"
    assert (await p.claim("a")).prefix == (100,)


async def test_a_restarted_worker_has_a_new_id_and_the_old_one_is_seen_dead(actors: BusActors) -> None:
    """Rule 5: under its old name its claims would never be missed; under a new one the owner sees the old holder dead."""
    owner, before = await actors.owner(), await actors.worker("host.1")
    await owner.submit("a")
    await before.claim("a")
    await before.stop()
    after = await actors.worker("host.2")
    [standing] = await owner.store.standings(["a"])
    assert (standing.holder, standing.holder_alive) == ("host.1", False)
    assert await after.queue.own_pending() == []
    assert await owner.raise_to("a", 2) == "RAISED"
    assert (await actors.sweep()).workers_removed == 1


async def test_only_ended_records_have_a_ttl(actors: BusActors) -> None:
    """Rule 3: a live record never ends by itself; an ended one does, however it ended."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    seen = {"QUEUED": await actors.ttl_ms("a")}
    claimed = await p.claim("a")
    seen["PREFILLING"] = await actors.ttl_ms("a")
    await p.hand_over(claimed, d)
    seen["HANDED"] = await actors.ttl_ms("a")
    received = await d.take("a")
    seen["DECODING"] = await actors.ttl_ms("a")
    await owner.raise_to("a", 2, prefix=[100])
    seen["raised"] = await actors.ttl_ms("a")
    assert set(seen.values()) == {-1}, seen
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    await owner.store.conclude("a", attempt=2, state=RequestState.CANCELLED, reason="")
    assert 0 < await actors.ttl_ms("a") <= TTL_S * 1000


async def test_an_owner_that_comes_back_late_finds_its_requests_cancelled(actors: BusActors) -> None:
    """Rule 13: its lease renewal is refused, it ends its clients' streams; it cannot bring the requests back to life."""
    owner = await actors.owner()
    await owner.submit("a")
    await owner.stop()
    await actors.sweep()
    assert await owner.store.heartbeat(ttl_s=TTL_S, status=b"", first=False) == "DRAINED"
    again = await actors.owner("r1.2")
    assert await again.raise_to("a", 2, force=True) == "NOT_OWNER"
    await again.store.submit([spec("b")])
    assert await actors.queued() == [("b", 1)]
