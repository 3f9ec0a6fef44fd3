"""The decode side against the real scripts: admission, steps and finishes, letting go, migration."""

from __future__ import annotations

import pytest
from support.bus_actors import BusActors, decode_job, part, status

from brigade.bus.decode_stream import Finish, StepFrame
from brigade.core.messages import PullFailed


async def test_admission_writes_decoding_and_releases_the_lender(actors: BusActors) -> None:
    """Rules 1 and 11: admit needs HANDED with the caller as holder; the hint only ends the loan sooner."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    assert await actors.state("a") == ("DECODING", 1, "d")
    assert await actors.hints("p") == [("release", "a", 1)]
    assert await d.decode.admit([received]) == ["OK"]
    assert await actors.hints("p") == [("release", "a", 1)]


async def test_admission_after_a_raise_is_stale_and_its_entry_dropped(actors: BusActors) -> None:
    """Rules 1 and 14."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d)
    received = await d.receive("a")
    assert await owner.raise_to("a", 2, prefix=[100]) == "RAISED"
    assert await d.decode.admit([received]) == ["STALE"]
    assert await actors.state("a") == ("QUEUED", 2, "")


async def test_admission_of_a_dead_owners_request_is_refused(actors: BusActors) -> None:
    """Rule 13."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d)
    received = await d.receive("a")
    await owner.stop()
    assert await d.decode.admit([received]) == ["NO_OWNER"]
    assert await actors.state("a") == ("HANDED", 1, "d")


async def test_read_gives_jobs_again_until_they_end(actors: BusActors) -> None:
    """Rule 4: the reply of a read may be lost; by id 0 the worker finds what it was given."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d)
    [received] = await d.decode.read(new=True)
    assert (received.job, received.owner) == (decode_job("a"), "r1")
    assert await d.decode.read(new=False) == [received]
    assert await d.decode.read(new=True) == []
    assert await d.decode.admit([received]) == ["OK"]
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]
    assert await d.decode.read(new=False) == []


async def test_finish_ends_record_entry_and_stream_in_one_step(actors: BusActors) -> None:
    """Rule 3: last frame, FINISHED with its TTL, and the entry's end are one transaction."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    assert await actors.ttl_ms("a") == -1
    assert await d.step("r1", [part("a", 1)]) == []
    assert await d.step("r1", ends=[(received, part("a", 2, finish_reason="stop"))]) == ["OK"]
    assert await owner.unread() == [part("a"), part("a", 1), part("a", 2, finish_reason="stop")]
    assert (await actors.state("a"))[0] == "FINISHED"
    assert await actors.ttl_ms("a") > 0
    assert await actors.num_decode_entries("d") == 0
    assert not await actors.bus.command("EXISTS", actors.keys.owned("r1"))


async def test_finish_sent_twice_publishes_once(actors: BusActors) -> None:
    """Rule 4: ALREADY, and the last part is not published again."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    last = part("a", 1, finish_reason="stop")
    assert await d.step("r1", ends=[(received, last)]) == ["OK"]
    assert await d.step("r1", ends=[(received, last)]) == ["ALREADY"]
    assert await owner.unread() == [part("a"), last]


async def test_a_refused_finish_loses_only_its_own_part_of_the_frame(actors: BusActors) -> None:
    """Rule 19: the other requests of the frame lose no token."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    raised = await actors.decoding(owner, "raised", p, d)
    ends = await actors.decoding(owner, "ends", p, d)
    await actors.decoding(owner, "on", p, d)
    await owner.unread()
    assert await owner.raise_to("raised", 2) == "RAISED"
    answers = await d.step(
        "r1",
        [part("on", 1)],
        [(raised, part("raised", 1, finish_reason="stop")), (ends, part("ends", 1, finish_reason="stop"))],
    )
    assert answers == ["STALE", "OK"]
    assert await owner.unread() == [part("on", 1), part("ends", 1, finish_reason="stop")]
    assert await actors.state("raised") == ("QUEUED", 2, "")
    assert await actors.num_decode_entries("d") == 1


async def test_one_step_speaks_to_several_owners_in_order(actors: BusActors) -> None:
    """One frame per router (rule 19), answers in the order of routers and their finishes."""
    r1, r2, d = await actors.owner("r1"), await actors.owner("r2"), await actors.worker("d")
    a = await actors.decoding(r1, "a", d, d)
    b = await actors.decoding(r2, "b", d, d)
    await r1.unread()
    await r2.unread()
    assert await r2.raise_to("b", 2) == "RAISED"
    frames = {
        "r1": StepFrame(parts=[], finishes=[Finish(entry_id=a.entry_id, part=part("a", 1, finish_reason="stop"))]),
        "r2": StepFrame(parts=[], finishes=[Finish(entry_id=b.entry_id, part=part("b", 1, finish_reason="stop"))]),
    }
    assert await d.decode.publish(frames, timeout_s=5) == ["OK", "STALE"]
    assert await r1.unread() == [part("a", 1, finish_reason="stop")]
    assert await r2.unread() == []


async def test_finish_at_a_worker_whose_admission_was_forgotten_keeps_the_entry(actors: BusActors) -> None:
    """Rules 2 and 14: the record says HANDED to this worker, so the entry is not stale; it is found again by id 0."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await actors.bus.command("HSET", actors.keys.request("a"), "state", "HANDED")
    assert await d.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    assert await d.decode.read(new=False) == [received]


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_failed_pull_ends_like_a_finish_and_is_told_once(actors: BusActors, admitted: bool) -> None:
    """Rule 10: one transaction deletes the entry and tells the owner, who raises the attempt."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d)
    received = await d.receive("a")
    if admitted:
        await d.decode.admit([received])
    assert await d.decode.let_go(received.job, received.entry_id, "generation changed") == "REPORTED"
    assert await d.decode.let_go(received.job, received.entry_id, "generation changed") == "REPORTED"
    told = PullFailed(request_id="a", attempt=1, reason="generation changed")
    assert await owner.unread() == [part("a"), told]
    assert await actors.num_decode_entries("d") == 0
    assert await d.decode.admit([received]) == ["STALE"]
    assert await owner.raise_to("a", 2, prefix=[100]) == "RAISED"


async def test_letting_go_of_an_attempt_that_has_moved_on_tells_nobody(actors: BusActors) -> None:
    """Rule 10: only a job that the record still gives to this worker is worth a new attempt."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    received = await actors.decoding(owner, "a", p, d)
    await owner.unread()
    assert await owner.raise_to("a", 2) == "RAISED"
    assert await d.decode.let_go(received.job, received.entry_id, "x") == "STALE"
    assert await owner.unread() == []


async def test_a_worker_keeps_two_attempts_of_one_request_apart(actors: BusActors) -> None:
    """Rule 20: everything is keyed by (request, attempt); the old attempt's end leaves the new one alone."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    old = await actors.decoding(owner, "a", p, d)
    assert await owner.raise_to("a", 2, prefix=[100]) == "RAISED"
    assert await p.hand_over(await p.claim("a"), d) == "DONE"
    new = await d.take("a")
    assert (old.job.attempt, new.job.attempt) == (1, 2)
    reply = await d.lease.beat(status("d"), [old.job.key, new.job.key], [])
    assert reply.ended == {old.job.key}
    assert await d.step("r1", ends=[(old, part("a", 1, finish_reason="stop"))]) == ["STALE"]
    assert await d.decode.let_go(old.job, old.entry_id, "x") == "STALE"
    assert await actors.state("a") == ("DECODING", 2, "d")
    assert await d.step("r1", ends=[(new, part("a", 2, attempt=2, finish_reason="stop"))]) == ["OK"]


async def test_migration_moves_the_decode_and_its_unpublished_tokens(actors: BusActors) -> None:
    """Rule 9: one transaction, and the request is at one holder only."""
    owner, p = await actors.owner(), await actors.worker("p")
    d1, d2 = await actors.worker("d1"), await actors.worker("d2")
    received = await actors.decoding(owner, "a", p, d1)
    moved = decode_job("a", worker_id="d1")
    assert await d1.decode.migrate(received.entry_id, part("a", 1), "d2", moved) == "DONE"
    assert await actors.state("a") == ("HANDED", 1, "d2")
    assert await d1.decode.migrate(received.entry_id, part("a", 1), "d2", moved) == "ALREADY"
    assert await owner.unread() == [part("a"), part("a", 1)]
    assert (await actors.num_decode_entries("d1"), await actors.num_decode_entries("d2")) == (0, 1)
    again = await d2.take("a")
    assert again.job == moved
    assert await actors.hints("d1") == [("release", "a", 1)]
    assert await d1.step("r1", ends=[(received, part("a", 2, finish_reason="stop"))]) == ["STALE"]
    assert await d2.step("r1", ends=[(again, part("a", 2, finish_reason="stop"))]) == ["OK"]


@pytest.mark.parametrize("reason", ["dead", "draining", "epoch"])
async def test_migration_to_a_target_that_refuses_lets_the_worker_step_on(actors: BusActors, reason: str) -> None:
    """Rules 8 and 9: TARGET changes nothing."""
    owner, p = await actors.owner(), await actors.worker("p")
    d1, d2 = await actors.worker("d1"), await actors.worker("d2")
    received = await actors.decoding(owner, "a", p, d1)
    if reason == "dead":
        await d2.stop()
    elif reason == "draining":
        await d2.lease.start_draining()
    job = decode_job("a", worker_id="d1", epoch=2 if reason == "epoch" else 1)
    assert await d1.decode.migrate(received.entry_id, part("a", 1), "d2", job) == "TARGET"
    assert await actors.state("a") == ("DECODING", 1, "d1")
    assert await owner.unread() == [part("a")]
    assert await d1.step("r1", ends=[(received, part("a", 1, finish_reason="stop"))]) == ["OK"]


async def test_an_owners_raise_wins_over_a_migration(actors: BusActors) -> None:
    """Rule 9: the migration is refused and the blocks are freed."""
    owner, p = await actors.owner(), await actors.worker("p")
    d1, _ = await actors.worker("d1"), await actors.worker("d2")
    received = await actors.decoding(owner, "a", p, d1)
    await owner.unread()
    assert await owner.raise_to("a", 2) == "RAISED"
    answer = await d1.decode.migrate(received.entry_id, part("a", 1), "d2", decode_job("a", worker_id="d1"))
    assert answer == "STALE"
    assert await owner.unread() == []
    assert await actors.num_decode_entries("d2") == 0


async def test_migration_of_a_job_not_yet_admitted_loses_nothing(actors: BusActors) -> None:
    """Rule 9 needs DECODING; a HANDED job stays where it is, with its entry."""
    owner, p = await actors.owner(), await actors.worker("p")
    d1, _ = await actors.worker("d1"), await actors.worker("d2")
    await owner.submit("a")
    await p.hand_over(await p.claim("a"), d1)
    received = await d1.receive("a")
    assert await d1.decode.migrate(received.entry_id, None, "d2", decode_job("a", worker_id="d1")) == "STALE"
    assert await d1.decode.read(new=False) == [received]
    assert await d1.decode.admit([received]) == ["OK"]
