"""The owner of requests against a real Redis, with a worker whose every move the test makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.redis_server import RedisServer
from support.waiting import wait_until

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream, Finish, ReceivedJob, StepFrame
from brigade.bus.inspect import request_record
from brigade.bus.prefill_queue import ClaimedJob, PrefillQueue
from brigade.bus.registry import WorkerLease
from brigade.core.answer import AcceptedTokens
from brigade.core.config import TimingConfig
from brigade.core.errors import BrigadeError, Unavailable
from brigade.core.kv import KVHandle
from brigade.core.messages import DecodeJob, Role, TokensPart, WorkerStatus
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled
from services.router.owning.owner import RequestOwner

TIMING = TimingConfig(
    heartbeat_interval_s=0.05, heartbeat_ttl_s=0.4, gap_timeout_s=0.3, max_attempts=3, record_ttl_s=60, block_ms=50
)


class Answer:
    """A sink that keeps the answer; `stop_after` plays a stop string."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.error: BrigadeError | None = None
        self.stop_after = stop_after

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        assert accepted.offset == len(self.token_ids)
        self.token_ids += [token.token_id for token in accepted.tokens]
        self.finish_reason = accepted.finish_reason
        if self.stop_after is not None and len(self.token_ids) >= self.stop_after:
            self.finish_reason = "stop"
        return self.finish_reason

    def on_error(self, error: BrigadeError) -> None:
        self.error = error


class HandWorker:
    """A registered worker in both roles whose heartbeat goes on until it is told to die."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.lease = WorkerLease(bus, name, ttl_s=TIMING.heartbeat_ttl_s)
        self.queue = PrefillQueue(bus, name, record_ttl_s=60)
        self.stream = DecodeStream(bus, name, record_ttl_s=60)
        self.status = WorkerStatus(
            worker_id=name, host="h", pid=1, model="m", model_revision="r", num_blocks=100, block_size_tokens=16
        )
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.lease.register(Role.MIXED, 1, self.status)
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            reply = await self.lease.beat(self.status, [], [])
            if reply.lease != "OK":
                await self.lease.register(Role.MIXED, 1, self.status)
            await asyncio.sleep(TIMING.heartbeat_interval_s)

    async def die(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def claim(self) -> ClaimedJob:
        async def claimed() -> list[ClaimedJob]:
            return await self.queue.claim((await self.queue.window(10))[:1])

        return (await wait_until(claimed))[0]

    async def hand_over(self, claimed: ClaimedJob, token: int, target: HandWorker | None = None) -> ReceivedJob:
        target = target or self
        w = claimed.waiting.job
        output = (*claimed.prefix, token)
        handle = KVHandle(
            transport="shm",
            location="/nowhere",
            incarnation="i",
            worker_id=self.name,
            blocks=((0, 1),),
            num_tokens=1,
            block_size_tokens=16,
            block_bytes=1,
            dtype="float32",
            layout="l",
            model_revision="r",
        )
        job = DecodeJob(request_id=w.request_id, attempt=w.attempt, epoch=1, output_token_ids=output, handle=handle)
        assert await self.queue.hand_over(claimed, part(job, token), target.name, job) == "DONE"
        received = await target.stream.read(new=True)
        assert await target.stream.admit(received) == ["OK"]
        return received[0]

    async def step(self, received: ReceivedJob, offset: int, token: int, reason: str | None = None) -> list[str]:
        new = TokensPart(
            request_id=received.job.request_id,
            attempt=received.job.attempt,
            offset=offset,
            tokens=(Sampled(token_id=token),),
            finish_reason=reason,
        )
        finishes = [Finish(entry_id=received.entry_id, part=new)] if reason else []
        frame = StepFrame(parts=[] if reason else [new], finishes=finishes)
        return await self.stream.publish({received.owner: frame}, timeout_s=2)


def part(job: DecodeJob, token: int) -> TokensPart:
    return TokensPart(
        request_id=job.request_id,
        attempt=job.attempt,
        offset=len(job.output_token_ids) - 1,
        tokens=(Sampled(token_id=token),),
    )


def spec(request_id: str, max_tokens: int = 10) -> RequestSpec:
    return RequestSpec(
        request_id=request_id,
        prompt_token_ids=(1, 2, 3),
        sampling=SamplingParams(),
        stop=StopParams(max_tokens=max_tokens),
        arrival_s=time.time(),
    )


@asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[RequestOwner]:
    """An owner that runs, and drains at the end."""
    owner = RequestOwner(bus, TIMING)
    draining = asyncio.Event()
    task = asyncio.create_task(owner.run(draining))
    await wait_until(lambda: task.done() or owner.is_ready() != "the router is starting")
    try:
        yield owner
    finally:
        for request_id in ("a", "b"):
            owner.cancel(request_id)
        draining.set()
        async with asyncio.timeout(10):
            await task


@pytest.fixture
async def worker(bus: Bus) -> AsyncIterator[HandWorker]:
    hand = HandWorker(bus, "w0-n")
    await hand.start()
    yield hand
    await hand.die()


async def test_an_answer_is_streamed_in_order_and_ends(bus: Bus, worker: HandWorker) -> None:
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10)
        await worker.step(received, 1, 11)
        assert await worker.step(received, 2, 12, "length") == ["OK"]
        await wait_until(lambda: answer.finish_reason)
        assert answer.token_ids == [10, 11, 12]
        assert owner.num_unfinished == 0


async def test_nothing_is_accepted_without_workers(bus: Bus) -> None:
    async with running(bus) as owner:
        with pytest.raises(Unavailable, match="no prefill worker"):
            owner.submit([spec("a")], [Answer()])


async def test_a_dead_holder_costs_a_pause_and_no_token(bus: Bus, worker: HandWorker) -> None:
    """The next attempt continues from exactly the accepted prefix; the dead worker's late frames change nothing."""
    dying = HandWorker(bus, "w1-n")
    await dying.start()
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10, target=dying)
        await dying.step(received, 1, 11)
        await wait_until(lambda: len(answer.token_ids) == 2)
        await dying.die()
        claimed = await worker.claim()
        assert claimed.prefix == (10, 11)
        assert claimed.waiting.job.attempt == 2
        await dying.step(received, 2, 99)
        again = await worker.hand_over(claimed, 12)
        await worker.step(again, 3, 13, "stop")
        await wait_until(lambda: answer.finish_reason)
        assert answer.token_ids == [10, 11, 12, 13]


async def test_a_failed_pull_starts_the_next_attempt(bus: Bus, worker: HandWorker) -> None:
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10)
        assert await worker.stream.let_go(received.job, received.entry_id, "gone") == "REPORTED"
        claimed = await worker.claim()
        assert (claimed.prefix, claimed.waiting.job.attempt) == ((10,), 2)


async def test_a_failed_pull_whose_frame_is_lost_starts_the_next_attempt_too(bus: Bus, worker: HandWorker) -> None:
    """The record without a holder says it as well (rule 10)."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        owner.submit([spec("a")], [Answer()])
        received = await worker.hand_over(await worker.claim(), 10)
        await bus.command(
            "HSET", bus.keys.request("a"), "owner", "nobody"
        )  # the frame goes to a stream that is not there
        await worker.stream.let_go(received.job, received.entry_id, "gone")
        await bus.command("HSET", bus.keys.request("a"), "owner", owner.router_id)
        claimed = await worker.claim()
        assert claimed.waiting.job.attempt == 2


async def test_attempts_are_bounded(bus: Bus, worker: HandWorker) -> None:
    """A request that breaks every worker fails and leaves a dead letter (rule 21)."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        for attempt in range(1, TIMING.max_attempts + 1):
            received = await worker.hand_over(await worker.claim(), 10 + attempt)
            await worker.stream.let_go(received.job, received.entry_id, "gone")
        await wait_until(lambda: answer.error)

        async def failed() -> bool:
            record = await request_record(bus, "a")
            return record is not None and record["state"] == "FAILED"

        await wait_until(failed)
        assert await bus.command("XLEN", bus.keys.dead) == 1


async def test_a_stop_string_ends_the_record_and_the_holders_work(bus: Bus, worker: HandWorker) -> None:
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer(stop_after=2)
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10)
        await worker.step(received, 1, 11)
        await wait_until(lambda: answer.finish_reason)

        async def told() -> bool:
            return any(m.kind == "drop" for m in await worker.lease.read_control())

        await wait_until(told)
        assert await worker.step(received, 2, 12, "length") == ["STALE"]
        assert answer.token_ids == [10, 11]


async def test_a_lease_that_lapsed_unnoticed_refuses_nobody(bus: Bus, worker: HandWorker) -> None:
    """A router that was held up longer than its heartbeat counts renews it and goes on."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        await bus.command("DEL", bus.keys.router(owner.router_id))
        answer = Answer()
        owner.submit([spec("a")], [answer])
        claimed = await worker.claim()
        assert claimed.waiting.job.attempt == 1
        assert answer.error is None


@pytest.mark.parametrize("stage", ["queued", "prefilling", "decoding"])
async def test_a_cancelled_request_is_ended_wherever_it_is(bus: Bus, worker: HandWorker, stage: str) -> None:
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        owner.submit([spec("a")], [Answer()])
        claimed = await worker.claim() if stage != "queued" else None
        if stage == "decoding":
            assert claimed
            await worker.hand_over(claimed, 10)
        owner.cancel("a")

        async def cancelled() -> bool:
            record = await request_record(bus, "a")
            return record is not None and record["state"] == "CANCELLED"

        await wait_until(cancelled)
        assert await worker.queue.window(10) == []
        assert await worker.stream.read(new=False) == []


async def test_a_lost_frame_is_a_gap_that_costs_an_attempt(bus: Bus, worker: HandWorker) -> None:
    """A frame that MAXLEN took does not hang the client (rule 15)."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10)
        await worker.step(received, 2, 12)  # offset 1 was lost
        claimed = await worker.claim()
        assert claimed.prefix == (10,)


async def test_a_lost_last_frame_reopens_a_finished_record(bus: Bus, worker: HandWorker) -> None:
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        received = await worker.hand_over(await worker.claim(), 10)
        await worker.step(received, 2, 12, "stop")  # offset 1 was lost, the record says FINISHED
        claimed = await worker.claim()
        assert claimed.prefix == (10,)
        again = await worker.hand_over(claimed, 21)
        await worker.step(again, 2, 22, "stop")
        await wait_until(lambda: answer.finish_reason)
        assert answer.token_ids == [10, 21, 22]


async def test_a_flushed_redis_makes_the_owner_start_again(bus: Bus, worker: HandWorker) -> None:
    """Everything is forgotten: accepted tokens stand, the request goes on at a fresh attempt (rule 2)."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        await worker.hand_over(await worker.claim(), 10)
        await wait_until(lambda: answer.token_ids)
        await bus.command("FLUSHALL")
        claimed = await worker.claim()
        assert claimed.prefix == (10,)
        assert claimed.waiting.job.attempt == 2
        received = await worker.hand_over(claimed, 11)
        await worker.step(received, 2, 12, "stop")
        await wait_until(lambda: answer.finish_reason)
        assert answer.token_ids == [10, 11, 12]


async def test_a_restarted_redis_costs_a_pause(own_redis_server: RedisServer, installation: str) -> None:
    bus = Bus(own_redis_server.url, installation, block_ms=50)
    await bus.open()
    worker = HandWorker(bus, "w0-n")
    await worker.start()
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        await worker.hand_over(await worker.claim(), 10)
        await wait_until(lambda: answer.token_ids)
        own_redis_server.restart()
        claimed = await worker.claim()
        assert claimed.prefix == (10,)
        assert claimed.waiting.job.attempt > 1
        received = await worker.hand_over(claimed, 11)
        await worker.step(received, 2, 12, "stop")
        await wait_until(lambda: answer.finish_reason)
        assert answer.token_ids == [10, 11, 12]
    await worker.die()
    await bus.close()


async def test_an_owner_taken_for_dead_ends_its_streams_and_returns(bus: Bus, worker: HandWorker) -> None:
    """A router that was paused past its lease finds its requests cancelled by the janitor (rule 13)."""
    async with running(bus) as owner:
        await wait_until(lambda: owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("a")], [answer])
        await worker.claim()
        before = owner.router_id
        # as a janitor elsewhere does it, at once
        await bus.command("DEL", bus.keys.router(before))
        await bus.run("janitor", 60000, -1, *bus.keys.streams)
        await wait_until(lambda: answer.error)
        await wait_until(lambda: owner.router_id != before and owner.is_ready() is None)
        answer = Answer()
        owner.submit([spec("b", max_tokens=1)], [answer])
        claimed = await worker.claim()
        last = TokensPart(request_id="b", attempt=1, offset=0, tokens=(Sampled(token_id=5),), finish_reason="length")
        assert await worker.queue.finish(claimed, last) == "DONE"
        await wait_until(lambda: answer.finish_reason)
