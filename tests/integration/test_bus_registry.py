"""Who lives, in which role, and who cleans up: heartbeats, drain and switch, leadership, the janitor; real scripts."""

from __future__ import annotations

import pytest
from support.bus_actors import TTL_S, BusActors, Worker, decode_job, part, status

from brigade.bus.leadership import Leadership, post_intent, take_intents
from brigade.bus.registry import Lease, list_workers
from brigade.core.messages import ControlKind, Role, RoleIntent
from brigade.core.request import RequestState


async def test_heartbeat_returns_the_attempts_that_have_ended_or_moved_on(actors: BusActors) -> None:
    """Rule 16: a lost hint costs at most one heartbeat."""
    owner, w, d = await actors.owner(), await actors.worker("w"), await actors.worker("d")
    for request_id in ("on", "raised", "cancelled"):
        await actors.decoding(owner, request_id, w, d)
    assert await owner.raise_to("raised", 2) == "RAISED"
    await owner.store.conclude("cancelled", attempt=1, state=RequestState.CANCELLED, reason="")
    running = [("on", 1), ("raised", 1), ("cancelled", 1), ("gone", 1)]
    reply = await d.lease.beat(status("d"), running, [])
    assert reply.lease is Lease.OK
    assert reply.ended == {("raised", 1), ("cancelled", 1), ("gone", 1)}


async def test_the_lender_decides_by_the_record(actors: BusActors) -> None:
    """Rule 11: a loan ends when the record says so, is orphaned when its reader's heartbeat has gone, else it stays."""
    owner, p, d, dying = (
        await actors.owner(),
        await actors.worker("p"),
        await actors.worker("d"),
        await actors.worker("x"),
    )
    for request_id, target in (("handed", d), ("copied", d), ("raised", d), ("orphaned", dying)):
        await owner.submit(request_id)
        assert await p.hand_over(await p.claim(request_id), target) == "DONE"
    await owner.submit("mine")
    await p.claim("mine")
    await d.take("copied")
    assert await owner.raise_to("raised", 2) == "RAISED"
    await dying.stop()
    loans = [(request_id, 1) for request_id in ("handed", "copied", "raised", "orphaned", "mine", "gone")]
    reply = await p.lease.beat(status("p"), [], loans)
    assert reply.loans_ended == {("copied", 1), ("raised", 1), ("gone", 1)}
    assert reply.loans_orphaned == {("orphaned", 1)}
    assert reply.ended == frozenset()


async def test_blocks_that_a_worker_decodes_on_itself_are_no_loan_to_be_ended(actors: BusActors) -> None:
    """Rule 11: a local job takes its blocks over; DECODING here must not free them."""
    owner, w = await actors.owner(), await actors.worker("w")
    received = await actors.decoding(owner, "a", w, w)
    assert await actors.hints("w") == []
    reply = await w.lease.beat(status("w"), [("a", 1)], [("a", 1)])
    assert (reply.ended, reply.loans_ended, reply.loans_orphaned) == (frozenset(), frozenset(), frozenset())
    await w.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))])
    assert (await w.lease.beat(status("w"), [], [("a", 1)])).loans_ended == {("a", 1)}


async def test_a_lapsed_heartbeat_says_so_and_a_drained_one_too(actors: BusActors) -> None:
    """Rule 5: before the janitor a worker just registers again; after it, it takes a new id and drops all it holds."""
    w = await actors.worker("w")
    await w.stop()
    assert (await w.lease.beat(status("w"), [], [])).lease is Lease.LAPSED
    await w.start()
    assert (await w.lease.beat(status("w"), [], [])).lease is Lease.OK
    await w.stop()
    assert (await actors.sweep()).workers_removed == 1
    assert (await w.lease.beat(status("w"), [], [])).lease is Lease.DRAINED
    assert not await actors.bus.command("EXISTS", actors.keys.worker("w"), actors.keys.decode("w"))


async def test_heartbeat_never_writes_role_epoch_or_accepting(actors: BusActors) -> None:
    """Rule 8."""
    w = await actors.worker("w", Role.PREFILL, epoch=3)
    await w.lease.start_draining()
    await w.lease.beat(status("w"), [], [])
    [view] = await list_workers(actors.bus)
    assert (view.role, view.epoch, view.accepting, view.status) == (Role.PREFILL, 3, False, status("w"))


async def test_heartbeats_have_a_ttl_and_the_dead_stay_listed_until_swept(actors: BusActors) -> None:
    """A member leaves the set only after its streams are drained."""
    w = await actors.worker("w")
    assert 0 < await actors.bus.command("PTTL", actors.keys.worker("w")) <= TTL_S * 1000
    await w.stop()
    [view] = await list_workers(actors.bus)
    assert (view.worker_id, view.is_alive, view.role) == ("w", False, None)


async def test_a_status_of_another_version_does_not_hide_the_other_workers(actors: BusActors) -> None:
    """While an installation is upgraded both versions stand in one registry."""
    await actors.worker("new")
    await actors.worker("old")
    await actors.bus.command("HSET", actors.keys.worker("new"), "status", b"\x93\x63\x01\x02")
    new, old = await list_workers(actors.bus)
    assert (new.worker_id, new.is_alive, old.worker_id, old.is_alive) == ("new", False, "old", True)


async def test_leaving_in_good_order_ends_the_heartbeat_at_once(actors: BusActors) -> None:
    """Deregister may be sent twice; the janitor does the rest."""
    w, owner = await actors.worker("w"), await actors.owner()
    for _ in range(2):
        await w.lease.deregister()
        await owner.store.deregister()
    report = await actors.sweep()
    assert (report.workers_removed, report.routers_removed) == (1, 1)


async def test_an_unregistered_worker_cannot_drain_or_switch(actors: BusActors) -> None:
    """Rule 8: it registers first; a key made by these scripts would have no TTL."""
    w = Worker(actors.bus, "ghost")
    assert not await w.lease.start_draining()
    assert await w.lease.switch(Role.PREFILL, 2) == "LAPSED"
    assert not await actors.bus.command("EXISTS", actors.keys.worker("ghost"))


async def test_switch_is_busy_while_a_decode_entry_or_a_pending_prefill_is_there(actors: BusActors) -> None:
    """Rule 8: read or unread, nothing may be left behind a role change."""
    owner, w, d = await actors.owner(), await actors.worker("w"), await actors.worker("d")
    await owner.submit("a", "b")
    claimed = await w.claim("a")
    await w.hand_over(claimed, d)
    claimed_b = await d.claim("b")
    await d.lease.start_draining()
    assert await d.lease.switch(Role.PREFILL, 2) == "BUSY"  # unread entry and a prefill
    received = await d.take("a")
    assert await d.lease.switch(Role.PREFILL, 2) == "BUSY"  # read entry
    await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))])
    assert await d.lease.switch(Role.PREFILL, 2) == "BUSY"  # the prefill
    await d.queue.give_back([claimed_b.waiting])
    assert await d.lease.switch(Role.PREFILL, 2) == "OK"
    views = {view.worker_id: view for view in await list_workers(actors.bus)}
    assert (views["d"].role, views["d"].epoch, views["d"].accepting) == (Role.PREFILL, 2, True)


async def test_switch_sent_again_is_done_even_when_work_has_come_since(actors: BusActors) -> None:
    """Rules 4 and 8: BUSY would send a worker back to draining that others already hand work to."""
    owner, p, w = await actors.owner(), await actors.worker("p"), await actors.worker("w", Role.PREFILL)
    await w.lease.start_draining()
    assert await w.lease.switch(Role.DECODE, 2) == "OK"
    w.epoch = 2
    await owner.submit("a")
    assert await p.hand_over(await p.claim("a"), w) == "DONE"
    assert await w.lease.switch(Role.DECODE, 2) == "OK"
    assert await w.lease.switch(Role.PREFILL, 3) == "BUSY"


async def test_a_registration_that_comes_late_never_lowers_an_epoch(actors: BusActors) -> None:
    """Rule 8: a register that Redis executes after its sender gave up must not undo a switch."""
    w = await actors.worker("w")
    await w.lease.start_draining()
    assert await w.lease.switch(Role.PREFILL, 2) == "OK"
    await w.lease.register(Role.MIXED, 1, status("w"))
    [view] = await list_workers(actors.bus)
    assert (view.role, view.epoch) == (Role.PREFILL, 2)


async def _leader(actors: BusActors, nonce: str) -> Leadership:
    leader = Leadership(actors.bus, nonce, ttl_s=TTL_S)
    await leader.renew()
    return leader


async def test_one_leads_and_terms_never_restart(actors: BusActors) -> None:
    """Rule 18: the term is a permanent counter of its own, not a part of the lease."""
    a = await _leader(actors, "a")
    b = await _leader(actors, "b")
    assert (a.term, b.term) == (1, 0)
    assert await a.renew() == 1
    await actors.bus.command("DEL", actors.keys.leader)
    assert await b.renew() == 2
    assert await a.renew() == 0
    await b.resign()
    assert await a.renew() == 3
    assert await actors.bus.command("PTTL", actors.keys.leader) > 0


async def test_a_role_written_by_an_old_leader_is_refused(actors: BusActors) -> None:
    """Rule 18: nonce and term are compared with the lease, which must exist."""
    await actors.worker("w")
    old = await _leader(actors, "old")
    await actors.bus.command("DEL", actors.keys.leader)
    assert await old.set_role("w", Role.DECODE, highest_epoch=0) == "NOT_LEADER"
    new = await _leader(actors, "new")
    assert await old.set_role("w", Role.DECODE, highest_epoch=0) == "NOT_LEADER"
    impostor = Leadership(actors.bus, "impostor", ttl_s=TTL_S)
    impostor.term = new.term  # after a loss two may hold the same term
    assert await impostor.set_role("w", Role.DECODE, highest_epoch=0) == "NOT_LEADER"
    assert await new.set_role("w", Role.DECODE, highest_epoch=0) == 2
    before = Leadership(actors.bus, "new", ttl_s=TTL_S)
    before.term = new.term
    await actors.bus.command("DEL", actors.keys.leader)
    await new.renew()
    assert await before.set_role("w", Role.PREFILL, highest_epoch=0) == "NOT_LEADER"  # of its own earlier term


@pytest.mark.parametrize(("actual", "desired", "seen"), [(5, 2, 1), (1, 5, 1), (1, 2, 5)])
async def test_the_next_epoch_is_above_desired_actual_and_seen(
    actors: BusActors, actual: int, desired: int, seen: int
) -> None:
    """Rule 18: an epoch that is not above the actual one would be ignored by the worker for ever."""
    await actors.worker("w", epoch=actual)
    await actors.bus.command("HSET", actors.keys.role("w"), "role", "decode", "epoch", desired)
    leader = await _leader(actors, "a")
    assert await leader.set_role("w", Role.PREFILL, highest_epoch=seen) == 6
    reply = await Worker(actors.bus, "w").lease.beat(status("w"), [], [])
    assert (reply.desired_role, reply.desired_epoch) == (Role.PREFILL, 6)


async def test_the_same_wish_written_again_needs_no_new_epoch(actors: BusActors) -> None:
    """Rule 4: the reply was lost; a second epoch would be a second flip."""
    w = await actors.worker("w")
    leader = await _leader(actors, "a")
    assert await leader.set_role("w", Role.DECODE, highest_epoch=1) == 2
    assert await leader.set_role("w", Role.DECODE, highest_epoch=1) == 2
    hints = await w.lease.read_control()
    assert [hint.kind for hint in hints] == [ControlKind.ROLE] * 2  # the entry that made the stream, and one wish
    assert await leader.set_role("w", Role.MIXED, highest_epoch=1) == 3


async def test_roles_are_written_for_registered_living_workers_only(actors: BusActors) -> None:
    """A role key of an unknown worker would stay for ever."""
    leader = await _leader(actors, "a")
    assert await leader.set_role("nobody", Role.DECODE, highest_epoch=0) == "UNKNOWN_WORKER"
    w = await actors.worker("w")
    await w.stop()
    assert await leader.set_role("w", Role.DECODE, highest_epoch=0) == "DEAD_WORKER"


async def test_operators_wishes_are_taken_by_the_leader_and_poison_does_not_stop_them(actors: BusActors) -> None:
    """A wish that cannot be read is buried with its reason; the next one is still seen."""
    await actors.bus.command("XADD", actors.keys.intents, "*", "w", "x", "role", "acrobat", "reason", "")
    intent = RoleIntent(worker_id="w", role=Role.DECODE, reason="night")
    await post_intent(actors.bus, intent)
    assert await take_intents(actors.bus) == [intent]
    assert await take_intents(actors.bus) == []
    [(source, _)] = await actors.dead_letters()
    assert source == actors.keys.intents


async def test_the_janitor_cancels_a_dead_routers_requests_and_deletes_its_keys(actors: BusActors) -> None:
    """Rule 13: one script; whatever state they were in, what they hold is freed."""
    dead, alive = await actors.owner("dead"), await actors.owner("alive")
    p, d = await actors.worker("p"), await actors.worker("d")
    await actors.decoding(dead, "decoding", p, d)
    await dead.submit("queued", "prefilling")
    claimed = await p.claim("prefilling")
    await alive.submit("other")
    await dead.stop()
    report = await actors.sweep()
    assert (report.requests_cancelled, report.routers_removed) == (3, 1)
    for request_id in ("decoding", "queued", "prefilling"):
        assert (await actors.state(request_id))[0] == "CANCELLED"
        assert await actors.ttl_ms(request_id) > 0
    assert await actors.queued() == [("other", 1)]
    assert await actors.num_decode_entries("d") == 0
    assert ("drop", "decoding", 1) in await actors.hints("d")
    keys = [actors.keys.tokens("dead"), actors.keys.owned("dead")]
    assert not await actors.bus.command("EXISTS", *keys)
    assert await p.hand_over(claimed, d) == "STALE"
    assert await dead.store.heartbeat(ttl_s=TTL_S, status=b"", first=False) == "DRAINED"


async def test_a_router_whose_lease_lapsed_goes_on_when_no_janitor_looked(actors: BusActors) -> None:
    """An outage takes all heartbeats at once; nobody has acted on it."""
    owner = await actors.owner()
    await owner.submit("a")
    await owner.stop()
    assert await owner.store.heartbeat(ttl_s=TTL_S, status=b"", first=False) == "OK"
    assert await owner.raise_to("a", 2) == "RAISED"


async def test_the_janitor_removes_a_dead_worker_only_when_nothing_living_is_left(actors: BusActors) -> None:
    """Rule 14: it drops stale entries and gives nothing back: only the owner starts anew."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await actors.decoding(owner, "decoding", p, d)
    await owner.submit("prefilling", "stale")
    await d.claim("prefilling")
    await d.claim("stale")
    await actors.bus.command("HSET", actors.keys.request("stale"), "attempt", 2)  # as an older owner raised it
    await d.stop()
    report = await actors.sweep()
    assert (report.entries_dropped, report.workers_removed) == (1, 0)
    assert await actors.state("prefilling") == ("PREFILLING", 1, "d")
    assert await owner.raise_to("decoding", 2) == await owner.raise_to("prefilling", 2) == "RAISED"
    assert (await actors.sweep()).workers_removed == 1
    gone = [actors.keys.decode("d"), actors.keys.control("d"), actors.keys.role("d")]
    assert not await actors.bus.command("EXISTS", *gone)
    assert sorted(await actors.queued()) == [("decoding", 2), ("prefilling", 2)]


async def test_the_janitor_looks_again_when_a_dead_worker_held_more_than_a_page(actors: BusActors) -> None:
    """Rule 14: deleting the consumer drops its pending entries, so nothing unseen may be among them."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit(*[f"s{i}" for i in range(1001)])
    key = actors.keys.queue("q:standard:0")
    assert len(await w.queue.claim(await w.queue.window(2000))) == 1001
    for i in range(1000):
        await actors.bus.command("HSET", actors.keys.request(f"s{i}"), "state", "CANCELLED")
        await actors.bus.command("PEXPIRE", actors.keys.request(f"s{i}"), 60_000)
    await w.stop()
    assert (await actors.sweep()).workers_removed == 0
    report = await actors.sweep()
    assert (report.entries_dropped, report.workers_removed) == (0, 0)
    assert await actors.bus.command("XLEN", key) == 1
    assert await actors.num_pending("w") == 1


async def test_the_janitor_leaves_the_living_alone(actors: BusActors) -> None:
    """A sweep of a healthy installation changes nothing."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    report = await actors.sweep()
    assert (report.requests_cancelled, report.entries_dropped, report.workers_removed, report.routers_removed) == (
        0,
        0,
        0,
        0,
    )
    assert received.job == decode_job("a")
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]
