"""The owner's side against the real scripts: submit, raise, conclude, watch; and frames to owners that are gone."""

from __future__ import annotations

import pytest
from support.bus_actors import BusActors, Owner, Worker, part, spec

from brigade.core.errors import BusError
from brigade.core.request import RequestState

FAILED, FINISHED, CANCELLED = RequestState.FAILED, RequestState.FINISHED, RequestState.CANCELLED


async def test_submit_sent_twice_queues_once(actors: BusActors) -> None:
    """Rule 4: the reply of the first may be lost."""
    owner = await actors.owner()
    await owner.submit("a", "b")
    await owner.submit("a", "b")
    assert await actors.queued() == [("a", 1), ("b", 1)]
    assert await actors.state("a") == ("QUEUED", 1, "")
    assert await actors.ttl_ms("a") == -1


async def test_submit_by_an_unregistered_router_is_refused(actors: BusActors) -> None:
    """Rule 13: without its heartbeat nobody would take the job, and no janitor would find it."""
    owner = Owner(actors.bus, "ghost")
    with pytest.raises(BusError, match="NO_OWNER"):
        await owner.submit("a")
    assert await actors.queued() == []


async def test_submit_of_an_id_that_another_router_recorded_is_refused_as_a_whole(actors: BusActors) -> None:
    """All or none: the second owner would wait for frames that go to the first."""
    r1, r2 = await actors.owner("r1"), await actors.owner("r2")
    await r1.submit("a")
    with pytest.raises(BusError, match="NOT_OWNER"):
        await r2.submit("b", "a")
    assert await actors.queued() == [("a", 1)]


async def _bring_to(actors: BusActors, state: str, owner: Owner, p: Worker, d: Worker) -> None:
    """Bring request `a` to a state."""
    await owner.submit("a")
    if state == "QUEUED":
        return
    claimed = await p.claim("a")
    if state == "PREFILLING":
        return
    assert await p.hand_over(claimed, d) == "DONE"
    if state == "HANDED":
        return
    received = await d.take("a")
    if state == "FINISHED":
        assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]
    assert (await actors.state("a"))[0] == state


LIVE_STATES = ("QUEUED", "PREFILLING", "HANDED", "DECODING")


@pytest.mark.parametrize("state", LIVE_STATES)
async def test_raise_queues_the_next_attempt_and_drops_what_the_old_one_left(actors: BusActors, state: str) -> None:
    """Rule 6: one script compares, writes attempt+1, QUEUED and no holder, and publishes the job with the prefix."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await _bring_to(actors, state, owner, p, d)
    assert await owner.raise_to("a", 2, prefix=[100, 101]) == "RAISED"
    assert await actors.state("a") == ("QUEUED", 2, "")
    assert await actors.queued() == [("a", 2)]
    assert (await actors.num_pending("p"), await actors.num_decode_entries("d")) == (0, 0)
    holder = {"PREFILLING": "p", "HANDED": "d", "DECODING": "d"}.get(state)
    if holder:
        assert ("drop", "a", 1) in await actors.hints(holder)
    claimed = await p.claim("a")
    assert (claimed.spec, claimed.prefix, claimed.waiting.job.num_prefix_tokens) == (spec("a"), (100, 101), 2)


async def test_raise_sent_twice_publishes_once(actors: BusActors) -> None:
    """Rule 4: also when the new attempt has begun in between."""
    owner, p = await actors.owner(), await actors.worker("p")
    await owner.submit("a")
    assert await owner.raise_to("a", 2) == "RAISED"
    assert await owner.raise_to("a", 2) == "ALREADY"
    assert await actors.queued() == [("a", 2)]
    await p.claim("a")
    assert await owner.raise_to("a", 2) == "ALREADY"
    assert await actors.state("a") == ("PREFILLING", 2, "p")


async def test_raise_of_a_finished_request_needs_leave_to_reopen(actors: BusActors) -> None:
    """Rules 6 and 15: the held frames may complete the answer; only if they do not, it is reopened."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await _bring_to(actors, "FINISHED", owner, p, d)
    assert await owner.raise_to("a", 2, prefix=[100]) == "FINISHED"
    assert await actors.queued() == []
    assert await owner.raise_to("a", 2, prefix=[100], force=True) == "RAISED"
    assert await actors.state("a") == ("QUEUED", 2, "")
    assert await actors.ttl_ms("a") == -1
    assert await actors.queued() == [("a", 2)]


@pytest.mark.parametrize("state", [CANCELLED, FAILED])
@pytest.mark.parametrize("force", [False, True])
async def test_raise_of_a_cancelled_or_failed_request_is_refused(
    actors: BusActors, state: RequestState, force: bool
) -> None:
    """Rule 6: the client's stream ends."""
    owner = await actors.owner()
    await owner.submit("a")
    assert await owner.store.conclude("a", attempt=1, state=state, reason="x") == state
    assert await owner.raise_to("a", 2, force=force) == state
    assert await actors.queued() == []


async def test_raise_makes_a_missing_record_only_with_leave(actors: BusActors) -> None:
    """Rule 2c: after a forgetful Redis the raise creates the record; else a missing record is terminal (rule 1)."""
    owner, p = await actors.owner(), await actors.worker("p")
    assert await owner.raise_to("a", 2) == "MISSING"
    assert await actors.queued() == []
    assert await owner.raise_to("a", 2, prefix=[7], force=True) == "RAISED"
    assert (await p.claim("a")).prefix == (7,)
    [owned] = await actors.bus.command("SMEMBERS", actors.keys.owned("r1"))
    assert owned == b"a"


async def test_raise_with_leave_goes_beyond_a_record_that_fell_back(actors: BusActors) -> None:
    """Rule 2c: raised to (highest attempt ever used)+1, whatever the record says; never below it."""
    owner = await actors.owner()
    await owner.submit("a")
    assert await owner.raise_to("a", 5, believed=4) == "AHEAD"
    assert await owner.raise_to("a", 5, believed=4, force=True) == "RAISED"
    assert await owner.raise_to("a", 4, force=True) == "AHEAD"
    assert await actors.queued() == [("a", 5)]


async def test_raise_by_another_router_or_one_without_heartbeat_is_refused(actors: BusActors) -> None:
    """Only the owner starts a new attempt, and only while others may see that it lives (rule 13)."""
    r1, r2 = await actors.owner("r1"), await actors.owner("r2")
    await r1.submit("a")
    assert await r2.raise_to("a", 2, force=True) == "NOT_OWNER"
    await r1.stop()
    assert await r1.raise_to("a", 2, force=True) == "NO_OWNER"
    assert await actors.queued() == [("a", 1)]


@pytest.mark.parametrize("end", [FINISHED, CANCELLED, FAILED])
@pytest.mark.parametrize("state", LIVE_STATES)
async def test_conclude_ends_a_request_in_every_state(actors: BusActors, state: str, end: RequestState) -> None:
    """Rules 6 and 16: a stop string, a cancel and a failure are written by state; the hint only speeds it up."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await _bring_to(actors, state, owner, p, d)
    assert await owner.store.conclude("a", attempt=1, state=end, reason="why") == end
    assert await owner.store.conclude("a", attempt=1, state=CANCELLED, reason="late") == end
    assert (await actors.state("a"))[0] == end
    assert await actors.ttl_ms("a") > 0
    assert await actors.queued() == []
    assert (await actors.num_pending("p"), await actors.num_decode_entries("d")) == (0, 0)
    holder = {"PREFILLING": "p", "HANDED": "d", "DECODING": "d"}.get(state)
    if holder:
        assert await actors.hints(holder) in ([("drop", "a", 1)], [("release", "a", 1), ("drop", "a", 1)])
    assert await actors.dead_letters() == ([("req:a", "why")] if end is FAILED else [])


async def test_every_script_of_a_worker_is_refused_after_a_cancel(actors: BusActors) -> None:
    """Rule 16: cancelled is a state, checked by each script, so a lost hint costs at most one heartbeat."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await owner.submit("b", "c")
    waiting = await p.waiting("b")
    claimed = await p.claim("c")
    for request_id in ("a", "b", "c"):
        await owner.store.conclude(request_id, attempt=1, state=CANCELLED, reason="client left")
    await owner.unread()
    assert await p.queue.claim([waiting]) == []
    assert await p.hand_over(claimed, d) == "STALE"
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    assert await owner.unread() == []


async def test_conclude_writes_a_terminal_record_where_redis_forgot_it(actors: BusActors) -> None:
    """Rule 2e: requests that the owner ended lately are written again, with the highest attempt ever used."""
    owner, other = await actors.owner(), await actors.owner("r2")
    assert await owner.store.conclude("a", attempt=3, state=FINISHED, reason="") == FINISHED
    assert await actors.state("a") == ("FINISHED", 3, "")
    assert await actors.ttl_ms("a") > 0
    assert await other.store.conclude("a", attempt=3, state=CANCELLED, reason="") == "NOT_OWNER"


async def test_standings_show_state_attempt_holder_and_whether_it_lives(actors: BusActors) -> None:
    """The owner raises what a worker without heartbeat holds."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await actors.decoding(owner, "a", p, d)
    await owner.submit("b")
    await d.stop()
    a, b, none = await owner.store.standings(["a", "b", "none"])
    assert (a.state, a.attempt, a.holder, a.holder_alive) == (RequestState.DECODING, 1, "d", False)
    assert (b.state, b.attempt, b.holder, b.holder_alive) == (RequestState.QUEUED, 1, "", True)
    assert (none.state, none.attempt) == (None, 0)
    assert await owner.store.standings([]) == []


async def test_a_request_that_outlived_its_attempts_is_failed_and_kept_for_inspection(actors: BusActors) -> None:
    """Rule 21: after N attempts the owner records FAILED and writes `dead`."""
    owner, p = await actors.owner(), await actors.worker("p")
    await owner.submit("a")
    for attempt in (2, 3):
        await p.claim("a")
        assert await owner.raise_to("a", attempt) == "RAISED"
    assert await owner.store.conclude("a", attempt=3, state=FAILED, reason="3 attempts") == FAILED
    assert await actors.dead_letters() == [("req:a", "3 attempts")]
    assert await actors.state("a") == ("FAILED", 3, "")


async def test_a_frame_to_a_dead_router_makes_no_key(actors: BusActors) -> None:
    """Rule 13: NOMKSTREAM, or a late worker makes the dead router's stream again, without a TTL."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await owner.stop()
    await actors.sweep()
    assert await d.step("r1", [part("a", 1)], [(received, part("a", 2, finish_reason="stop"))]) == ["STALE"]
    await d.decode.let_go(received.job, received.entry_id, "x")
    assert not await actors.bus.command("EXISTS", actors.keys.tokens("r1"))


async def test_frames_are_read_in_order_and_trimmed_behind_the_cursor(actors: BusActors) -> None:
    """Rule 2d: a rewind reads from the first entry that is left."""
    owner, d = await actors.owner(), await actors.worker("d")
    sent = [part("a", offset) for offset in range(300)]
    for one in sent:
        await d.step("r1", [one])
    got = []
    while len(got) < len(sent):
        got += await owner.frames.read()
    assert got == sent
    num_left = await actors.bus.command("XLEN", actors.keys.tokens("r1"))
    assert num_left == 46  # the 256th, where the cursor stood at the trim, and what came behind it
    owner.frames.rewind()
    assert await owner.frames.read() == sent[-num_left:]
