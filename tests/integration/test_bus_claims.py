"""The queue side against the real scripts: claims, hand-overs, giving back, own pending entries."""

from __future__ import annotations

import pytest
from support.bus_actors import BusActors, part, spec

from brigade.bus.inspect import queue_depths
from brigade.core.messages import Role


async def test_claim_takes_chosen_entries_in_any_order_and_tells_what_to_compute(actors: BusActors) -> None:
    """Rule 1: a claim needs QUEUED and writes PREFILLING with the claimant as holder."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a", "b", "c")
    window = {j.job.request_id: j for j in await w.queue.window(64)}
    claimed = await w.queue.claim([window["c"], window["a"]])
    assert [c.spec for c in claimed] == [spec("c"), spec("a")]
    assert [c.owner for c in claimed] == ["r1", "r1"]
    assert await actors.state("c") == ("PREFILLING", 1, "w")
    assert await actors.state("b") == ("QUEUED", 1, "")
    assert [j.job.request_id for j in await w.queue.window(64)] == ["b"]


async def test_claim_sent_twice_returns_the_same_jobs(actors: BusActors) -> None:
    """Rule 4: 'already done by you' is an answer of its own, with all that the first answer told."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a", "b")
    chosen = await w.queue.window(64)
    assert await w.queue.claim(chosen) == await w.queue.claim(chosen) != []
    assert await actors.num_pending("w") == 2


async def test_two_workers_after_the_same_16_ids_get_16_and_0(actors: BusActors) -> None:
    """Rule 1: the record's state decides a race, so nothing is computed twice."""
    owner, w0, w1 = await actors.owner(), await actors.worker("w0"), await actors.worker("w1")
    await owner.submit(*[f"q{i}" for i in range(16)])
    chosen = await w0.queue.window(64)
    assert await w1.queue.window(64) == chosen
    assert len(await w0.queue.claim(chosen)) == 16
    assert await w1.queue.claim(chosen) == []
    assert await actors.num_pending("w1") == 0


async def test_claim_without_own_heartbeat_is_refused(actors: BusActors) -> None:
    """Rule 12: a worker that the others hold for dead takes no work."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    waiting = await w.waiting("a")
    await w.stop()
    assert await w.queue.claim([waiting]) == []
    assert await actors.state("a") == ("QUEUED", 1, "")


async def test_claim_is_refused_when_the_owners_heartbeat_is_absent(actors: BusActors) -> None:
    """Rule 13: nobody waits for the answer; the janitor will cancel it."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    waiting = await w.waiting("a")
    await owner.stop()
    assert await w.queue.claim([waiting]) == []
    assert await actors.state("a") == ("QUEUED", 1, "")


async def test_claim_is_refused_to_a_draining_worker_and_to_a_decode_worker(actors: BusActors) -> None:
    """Rule 8: a draining worker ends what it has."""
    owner, w, d = await actors.owner(), await actors.worker("w"), await actors.worker("d", Role.DECODE)
    await owner.submit("a")
    waiting = await w.waiting("a")
    assert await w.lease.start_draining()
    assert await w.queue.claim([waiting]) == []
    assert await d.queue.claim([waiting]) == []


async def test_claim_of_an_entry_whose_attempt_has_moved_on_drops_it(actors: BusActors) -> None:
    """Rule 14: whoever meets a stale entry acknowledges and deletes it."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    stale = await w.waiting("a")
    # put the entry back as a lagging replica would show it
    key = actors.keys.queue(stale.stream)
    assert await owner.raise_to("a", 2) == "RAISED"
    entry = await actors.bus.command("XADD", key, "*", "r", "a", "a", 1, "j", b"")
    await actors.bus.command("XREADGROUP", "GROUP", "prefill", "inbox", "STREAMS", key, ">")
    again = type(stale)(stream=stale.stream, entry_id=entry.decode(), job=stale.job)
    assert await w.queue.claim([again]) == []
    assert await actors.queued() == [("a", 2)]


async def test_claim_of_an_entry_without_a_record_drops_it(actors: BusActors) -> None:
    """Rules 1 and 14: a missing record counts as terminal."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    waiting = await w.waiting("a")
    await actors.bus.command("DEL", actors.keys.request("a"), actors.keys.owned("r1"))
    assert await w.queue.claim([waiting]) == []
    assert await actors.queued() == []


async def test_claim_after_redis_forgot_the_queue_answers_instead_of_failing(actors: BusActors) -> None:
    """Rule 2: stream and group may be gone; the entry is stale, not an error."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("a")
    waiting = await w.waiting("a")
    await actors.bus.command("FLUSHALL")
    await w.start()
    assert await w.queue.claim([waiting]) == []
    assert await w.queue.window(64) == []


async def test_own_pending_finds_the_claims_whose_reply_was_lost(actors: BusActors) -> None:
    """Rule 4: a worker's own pending entries that the record gives it are run, stale ones dropped."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.submit("kept", "stale")
    claimed = await w.queue.claim(await w.queue.window(64))
    await actors.bus.command("HSET", actors.keys.request("stale"), "state", "CANCELLED")
    await actors.bus.command("PEXPIRE", actors.keys.request("stale"), 60_000)
    assert await w.queue.own_pending() == [c for c in claimed if c.spec.request_id == "kept"]
    assert await actors.queued() == [("kept", 1)]
    assert await actors.num_pending("w") == 1


async def test_give_back_writes_queued_and_parks_the_entry_for_others(actors: BusActors) -> None:
    """Rule 1: giving back writes QUEUED and clears the holder in the same script."""
    owner, w0, w1 = await actors.owner(), await actors.worker("w0"), await actors.worker("w1")
    await owner.submit("a")
    claimed = await w0.claim("a")
    assert await w0.queue.give_back([claimed.waiting]) == 1
    assert await actors.state("a") == ("QUEUED", 1, "")
    assert await actors.num_pending("w0") == 0
    assert await w0.queue.give_back([claimed.waiting]) == 0
    assert (await w1.claim("a")).waiting == claimed.waiting
    assert await w0.queue.give_back([claimed.waiting]) == 0
    assert await actors.state("a") == ("PREFILLING", 1, "w1")


async def test_hand_over_sent_twice_executes_once(actors: BusActors) -> None:
    """Rules 1 and 4: first token, decode job, state and the entry's end are one transaction, done once."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    claimed = await p.claim("a")
    assert await p.hand_over(claimed, d) == "DONE"
    assert await actors.state("a") == ("HANDED", 1, "d")
    assert await p.hand_over(claimed, d) == "ALREADY"
    assert await owner.unread() == [part("a")]
    assert await actors.num_decode_entries("d") == 1
    assert await actors.queued() == []


async def test_hand_over_sent_again_to_another_target_does_not_start_a_second_decode(actors: BusActors) -> None:
    """Rule 1: the reply was lost, so the worker placed it again elsewhere; only the first holder decodes."""
    owner, p = await actors.owner(), await actors.worker("p")
    d1, d2 = await actors.worker("d1"), await actors.worker("d2")
    await owner.submit("a")
    claimed = await p.claim("a")
    assert await p.hand_over(claimed, d1) == "DONE"
    assert await p.hand_over(claimed, d2) == "ALREADY"
    assert (await actors.num_decode_entries("d1"), await actors.num_decode_entries("d2")) == (1, 0)
    assert await actors.state("a") == ("HANDED", 1, "d1")


async def test_hand_over_after_a_raise_is_refused_and_its_entry_dropped(actors: BusActors) -> None:
    """Rule 6: from the raise on older transactions are refused, and only the new attempt is queued."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    claimed = await p.claim("a")
    assert await owner.raise_to("a", 2) == "RAISED"
    assert await p.hand_over(claimed, d) == "STALE"
    assert await owner.unread() == []
    assert await actors.num_decode_entries("d") == 0
    assert await actors.queued() == [("a", 2)]
    assert await actors.num_pending("p") == 0


async def test_hand_over_by_who_gave_the_job_back_leaves_the_entry_to_the_others(actors: BusActors) -> None:
    """Rules 1 and 14: only stale entries are dropped; this one is the living attempt's, and the job must still be found."""
    owner, w0, w1 = await actors.owner(), await actors.worker("w0"), await actors.worker("w1")
    await owner.submit("a")
    claimed = await w0.claim("a")
    await w0.queue.give_back([claimed.waiting])
    assert await w0.hand_over(claimed, w1) == "STALE"
    assert (await w1.claim("a")).waiting == claimed.waiting
    assert await w0.hand_over(claimed, w1) == "STALE"
    assert [c.waiting for c in await w1.queue.own_pending()] == [claimed.waiting]


@pytest.mark.parametrize("reason", ["dead", "draining", "epoch", "prefill role", "stream gone"])
async def test_hand_over_is_refused_by_a_target_that_must_not_decode(actors: BusActors, reason: str) -> None:
    """Rule 8: the target must live, accept, have the epoch the job was made for, and a stream; else it is placed anew."""
    owner, p = await actors.owner(), await actors.worker("p")
    d = await actors.worker("d", Role.PREFILL if reason == "prefill role" else Role.DECODE)
    other = await actors.worker("other")
    await owner.submit("a")
    claimed = await p.claim("a")
    if reason == "dead":
        await d.stop()
    elif reason == "draining":
        await d.lease.start_draining()
    elif reason == "epoch":
        d.epoch = 2
    elif reason == "stream gone":
        await actors.bus.command("DEL", actors.keys.decode("d"))
    assert await p.hand_over(claimed, d) == "TARGET"
    assert await owner.unread() == []
    assert await actors.num_decode_entries("d") == 0
    assert await actors.state("a") == ("PREFILLING", 1, "p")
    assert await p.hand_over(claimed, other) == "DONE"


async def test_hand_over_of_a_dead_owners_request_is_refused(actors: BusActors) -> None:
    """Rule 13."""
    owner, p, d = await actors.owner(), await actors.worker("p"), await actors.worker("d")
    await owner.submit("a")
    claimed = await p.claim("a")
    await owner.stop()
    assert await p.hand_over(claimed, d) == "NO_OWNER"
    assert await actors.num_decode_entries("d") == 0


async def test_a_first_token_that_is_the_last_finishes_instead_of_handing_over(actors: BusActors) -> None:
    """Rule 7: EOS or max_tokens at the first token; the same transaction is the finish, and a second one is ALREADY."""
    owner, p = await actors.owner(), await actors.worker("p")
    await owner.submit("a")
    claimed = await p.claim("a")
    last = part("a", finish_reason="length")
    assert await p.queue.finish(claimed, last) == "DONE"
    assert await p.queue.finish(claimed, last) == "ALREADY"
    assert await owner.unread() == [last]
    assert (await actors.state("a"))[0] == "FINISHED"
    assert await actors.bus.command("PTTL", actors.keys.request("a")) > 0
    assert await actors.queued() == []


async def test_waiting_for_work_ends_when_a_job_is_queued_and_not_before(actors: BusActors) -> None:
    """An idle worker sleeps in Redis, and a job queued between its look and its wait is not overlooked."""
    owner, w = await actors.owner(), await actors.worker("w")
    await w.queue.wait_for_work()
    before = w.queue._wake_cursor
    await w.queue.wait_for_work()
    assert w.queue._wake_cursor == before
    await owner.submit("a")
    await w.queue.wait_for_work()
    assert w.queue._wake_cursor != before


async def test_queue_depths_tell_waiting_from_claimed_over_several_pages_and_change_nothing(actors: BusActors) -> None:
    """An operator's question parks nothing and does not hold Redis up for the length of the queue."""
    owner, w = await actors.owner(), await actors.worker("w")
    await owner.store.submit([spec(f"q{i}", num_prompt_tokens=10) for i in range(1001)])
    await owner.store.submit([spec("long", num_prompt_tokens=300, priority_class="batch")])
    await actors.bus.command("XADD", actors.keys.queue("q:batch:2"), "*", "j", "poison")
    key = actors.keys.queue("q:standard:0")

    async def depths() -> dict[tuple[str, int], tuple[int, int, int, float | None]]:
        found = await queue_depths(actors.bus, now_s=1003.0)
        assert len(found) == len(actors.keys.streams)
        return {
            (d.priority_class, d.band): (d.num_waiting, d.num_waiting_tokens, d.num_prefilling, d.head_age_s)
            for d in found
            if d.num_waiting or d.num_prefilling
        }

    assert await depths() == {("standard", 0): (1001, 10010, 0, 3.0), ("batch", 2): (1, 300, 0, 3.0)}
    assert (await actors.bus.command("XINFO GROUPS", key))[0]["pending"] == 0
    await w.claim("q7")
    assert (await depths())["standard", 0] == (1000, 10000, 1, 3.0)
