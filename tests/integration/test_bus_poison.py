"""Entries that nobody can read: buried with their reason, acknowledged, their owners told, and the work goes on."""

from __future__ import annotations

import pytest
from support.bus_actors import BusActors, part

from brigade.bus.codec import decode_frame
from brigade.core.messages import ControlKind, ControlMessage, PullFailed


async def _spoil(actors: BusActors, request_id: str) -> None:
    """Replace a request's specification by bytes that are none."""
    await actors.bus.command("HSET", actors.keys.request(request_id), "spec", b"\xc1")


async def test_a_poison_queue_entry_is_buried_and_the_window_goes_on(actors: BusActors) -> None:
    owner, w = await actors.owner(), await actors.worker("w")
    key = actors.keys.queue("q:standard:0")
    await actors.bus.command("XADD", key, "*", "nonsense", "1")
    await owner.submit("a")
    assert [j.job.request_id for j in await w.queue.window(64)] == ["a"]
    [(source, reason)] = await actors.dead_letters()
    assert source.startswith(key)
    assert "prefill job" in reason
    assert await actors.bus.command("XLEN", key) == 1
    assert [j.job.request_id for j in await w.queue.window(64)] == ["a"]
    assert len(await actors.dead_letters()) == 1


async def test_the_owner_of_a_poison_queue_entry_is_told_once_and_can_raise(actors: BusActors) -> None:
    """Else the record would say QUEUED for ever while no entry is left (a worker of another version buried it)."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    waiting = await w.waiting("a")
    key = actors.keys.queue(waiting.stream)
    await actors.bus.command("XDEL", key, waiting.entry_id)
    entry = (await actors.bus.command("XADD", key, "*", "r", "a", "a", 1, "j", b"\x91\x63")).decode()
    await actors.bus.command("HSET", actors.keys.request("a"), "entry", entry)
    assert await w.queue.window(64) == []
    assert await w.queue.window(64) == []
    [told] = await owner.unread()
    assert isinstance(told, PullFailed)
    assert told.key == ("a", 1)
    assert await owner.raise_to("a", 2) == "RAISED"
    assert (await w.claim("a")).waiting.job.attempt == 2


@pytest.mark.parametrize("where", ["claim", "own pending"])
async def test_a_poison_specification_at_the_prefill_worker_is_told_to_its_owner(actors: BusActors, where: str) -> None:
    """The other claims of the same call are not lost with it."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("bad", "good")
    chosen = await w.queue.window(64)
    if where == "claim":
        await _spoil(actors, "bad")
        claimed = await w.queue.claim(chosen)
    else:
        await w.queue.claim(chosen)
        await _spoil(actors, "bad")
        claimed = await w.queue.own_pending()
    assert [c.spec.request_id for c in claimed] == ["good"]
    [told] = await owner.unread()
    assert told.key == ("bad", 1)
    assert await actors.num_pending("w") == 1
    assert await owner.raise_to("bad", 2) == "RAISED"


@pytest.mark.parametrize("what", ["job", "specification"])
async def test_a_poison_decode_entry_is_buried_told_and_does_not_stop_the_stream(actors: BusActors, what: str) -> None:
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("bad", "good")
    for request_id in ("bad", "good"):
        claimed = await p.claim(request_id)
        if (what, request_id) == ("specification", "bad"):
            await _spoil(actors, "bad")  # the hand-over sends what the record says
        assert await p.hand_over(claimed, d) == "DONE"
    await owner.unread()
    if what == "job":
        key = actors.keys.decode("d")
        [(old, _), _] = await actors.bus.command("XRANGE", key, "-", "+")
        await actors.bus.command("XDEL", key, old)
        entry = (await actors.bus.command("XADD", key, "*", "r", "bad", "a", 1, "j", b"\x91\x63")).decode()
        await actors.bus.command("HSET", actors.keys.request("bad"), "dentry", entry)
    assert [r.job.request_id for r in await d.decode.read(new=True)] == ["good"]
    assert [r.job.request_id for r in await d.decode.read(new=False)] == ["good"]
    [told] = await owner.unread()
    assert told.key == ("bad", 1)
    assert len(await actors.dead_letters()) == 1
    assert await owner.raise_to("bad", 2, prefix=[100]) == "RAISED"


async def test_a_decode_entry_whose_record_has_gone_is_dropped(actors: BusActors) -> None:
    """Rules 1 and 14: a missing record counts as terminal; it is no poison."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d)
    await actors.bus.command("DEL", actors.keys.request("a"), actors.keys.owned("r1"))
    assert await d.decode.admit(await d.decode.read(new=True)) == ["STALE"]
    assert await actors.num_decode_entries("d") == 0
    assert await actors.dead_letters() == []


async def test_a_decode_entry_deleted_while_pending_is_no_poison(actors: BusActors) -> None:
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await actors.bus.command("XDEL", actors.keys.decode("d"), received.entry_id)
    assert await d.decode.read(new=False) == []
    assert await actors.dead_letters() == []
    assert await actors.bus.command("XPENDING", actors.keys.decode("d"), "decode") == _nothing_pending()


def _nothing_pending() -> dict[str, object]:
    return {"pending": 0, "min": None, "max": None, "consumers": []}


async def test_a_poison_frame_is_buried_and_the_frames_around_it_are_read(actors: BusActors) -> None:
    """Rule 15: its requests notice the gap."""
    owner, d = await actors.owner(), await actors.worker("d")
    await d.step("r1", [part("a", 0)])
    await actors.bus.command("XADD", actors.keys.tokens("r1"), "*", "p", b"\xc1\xc1")
    await d.step("r1", [part("a", 2)])
    assert await owner.unread() == [part("a", 0), part("a", 2)]
    [(source, _)] = await actors.dead_letters()
    assert source == actors.keys.tokens("r1")


async def test_an_unknown_hint_does_not_hide_the_hints_around_it(actors: BusActors) -> None:
    """A newer router may know more kinds."""
    w = await actors.worker("w")
    await w.lease.read_control()
    for kind in ("drop", "tango", "release"):
        await actors.bus.command("XADD", actors.keys.control("w"), "*", "k", kind, "r", "a", "a", 1)
    assert await w.lease.read_control() == [
        ControlMessage(kind=ControlKind.DROP, request_id="a", attempt=1),
        ControlMessage(kind=ControlKind.RELEASE, request_id="a", attempt=1),
    ]
    assert len(await actors.dead_letters()) == 1


async def test_dead_letters_keep_the_bytes(actors: BusActors) -> None:
    """An operator looks at them, and may put them back."""
    w = await actors.worker("w")
    await actors.bus.command("XADD", actors.keys.queue("q:batch:2"), "*", "r", "x", "a", "y", "j", b"\x00\xff")
    await w.queue.window(64)
    [(_, fields)] = await actors.bus.command("XRANGE", actors.keys.dead, "-", "+")
    assert fields[b"data"] == b"\x00\xff"
    assert decode_frame(b"") == []
