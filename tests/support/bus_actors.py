"""Owners and workers on one bus, driven step by step: the calls that services make, without services."""

from __future__ import annotations

from collections.abc import Sequence

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream, Finish, ReceivedJob, StepFrame
from brigade.bus.frames import FrameReader
from brigade.bus.inspect import request_record
from brigade.bus.janitor import JanitorReport, sweep_dead
from brigade.bus.prefill_queue import ClaimedJob, PrefillQueue
from brigade.bus.registry import WorkerLease
from brigade.bus.requests import RequestStore
from brigade.core.kv import KVHandle
from brigade.core.messages import DecodeJob, FramePart, Role, TokensPart, WaitingJob, WorkerStatus
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled

TTL_S = 60.0
"""Of heartbeats and ended records: longer than any test, so that only `stop` ends a heartbeat."""


def spec(request_id: str, *, num_prompt_tokens: int = 3, priority_class: str = "standard") -> RequestSpec:
    return RequestSpec(
        request_id=request_id,
        prompt_token_ids=tuple(range(num_prompt_tokens)),
        sampling=SamplingParams(temperature=0.0),
        stop=StopParams(max_tokens=8),
        priority_class=priority_class,
        arrival_s=1000.0,
    )


def part(request_id: str, offset: int = 0, *, attempt: int = 1, finish_reason: str | None = None) -> TokensPart:
    """A part of one token, whose id tells attempt and offset: 100 * attempt + offset."""
    token = Sampled(token_id=100 * attempt + offset)
    return TokensPart(
        request_id=request_id, attempt=attempt, offset=offset, tokens=(token,), finish_reason=finish_reason
    )


def status(worker_id: str) -> WorkerStatus:
    return WorkerStatus(
        worker_id=worker_id, host="h", pid=1, model="m", model_revision="r", num_blocks=64, block_size_tokens=16
    )


def decode_job(
    request_id: str, *, attempt: int = 1, epoch: int = 1, worker_id: str = "p", output: tuple[int, ...] = (100,)
) -> DecodeJob:
    handle = KVHandle(
        transport="shm", location="/kv", incarnation="i", worker_id=worker_id, blocks=((1, 1),), num_tokens=3,
        block_size_tokens=16, block_bytes=1024, dtype="float32", layout="lhd", model_revision="r",
    )  # fmt: skip
    return DecodeJob(request_id=request_id, attempt=attempt, epoch=epoch, output_token_ids=output, handle=handle)


class Worker:
    """One worker's calls."""

    def __init__(self, bus: Bus, worker_id: str, role: Role = Role.MIXED, *, epoch: int = 1) -> None:
        self.bus = bus
        self.worker_id = worker_id
        self.role = role
        self.epoch = epoch
        self.lease = WorkerLease(bus, worker_id, ttl_s=TTL_S)
        self.queue = PrefillQueue(bus, worker_id, record_ttl_s=TTL_S)
        self.decode = DecodeStream(bus, worker_id, record_ttl_s=TTL_S)

    async def start(self) -> Worker:
        await self.lease.register(self.role, self.epoch, status(self.worker_id))
        return self

    async def stop(self) -> None:
        """End the heartbeat, as a crash does after its TTL."""
        await self.bus.command("DEL", self.bus.keys.worker(self.worker_id))

    async def waiting(self, request_id: str) -> WaitingJob:
        return next(j for j in await self.queue.window(64) if j.job.request_id == request_id)

    async def claim(self, request_id: str) -> ClaimedJob:
        [claimed] = await self.queue.claim([await self.waiting(request_id)])
        return claimed

    async def hand_over(self, claimed: ClaimedJob, target: Worker) -> str:
        job = claimed.waiting.job
        first = part(job.request_id, len(claimed.prefix), attempt=job.attempt)
        decode = decode_job(job.request_id, attempt=job.attempt, epoch=target.epoch, worker_id=self.worker_id)
        return await self.queue.hand_over(claimed, first, target.worker_id, decode)

    async def deliveries(self) -> list[ReceivedJob]:
        """Return all jobs on this worker's stream, read before or not, without waiting."""
        await self.bus.command(
            "XREADGROUP", "GROUP", "decode", self.worker_id, "STREAMS", self.bus.keys.decode(self.worker_id), ">"
        )
        return await self.decode.read(new=False)

    async def receive(self, request_id: str) -> ReceivedJob:
        """Return the decode job of a request from this worker's stream."""
        return next(j for j in await self.deliveries() if j.job.request_id == request_id)

    async def take(self, request_id: str) -> ReceivedJob:
        """Receive a decode job and admit it."""
        received = await self.receive(request_id)
        assert await self.decode.admit([received]) == ["OK"]
        return received

    async def step(
        self, router: str, parts: Sequence[TokensPart] = (), ends: Sequence[tuple[ReceivedJob, TokensPart]] = ()
    ) -> list[str]:
        finishes = [Finish(entry_id=received.entry_id, part=last) for received, last in ends]
        return await self.decode.publish({router: StepFrame(parts=list(parts), finishes=finishes)}, timeout_s=5)


class Owner:
    """One router's calls."""

    def __init__(self, bus: Bus, router_id: str) -> None:
        self.bus = bus
        self.router_id = router_id
        self.store = RequestStore(bus, router_id, record_ttl_s=TTL_S)
        self.frames = FrameReader(bus, router_id)

    async def start(self) -> Owner:
        assert await self.store.heartbeat(ttl_s=TTL_S, status=b"", first=True) == "OK"
        return self

    async def stop(self) -> None:
        await self.bus.command("DEL", self.bus.keys.router(self.router_id))

    async def submit(self, *request_ids: str) -> None:
        await self.store.submit([spec(request_id) for request_id in request_ids])

    async def raise_to(
        self,
        request_id: str,
        new: int,
        *,
        prefix: Sequence[int] = (),
        force: bool = False,
        believed: int | None = None,
    ) -> str:
        believed = new - 1 if believed is None else believed
        return await self.store.raise_attempt(spec(request_id), believed=believed, new=new, prefix=prefix, force=force)

    async def unread(self) -> list[FramePart]:
        """All parts that have come since the last call."""
        return [] if self.frames.has_passed(await self.frames.last_id()) else await self.frames.read()


class BusActors:
    """Makes owners and workers on one bus, looks at records and streams, and winds everything down."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.keys = bus.keys

    async def worker(self, worker_id: str, role: Role = Role.MIXED, *, epoch: int = 1) -> Worker:
        return await Worker(self.bus, worker_id, role, epoch=epoch).start()

    async def owner(self, router_id: str = "r1") -> Owner:
        return await Owner(self.bus, router_id).start()

    async def decoding(self, owner: Owner, request_id: str, p: Worker, d: Worker) -> ReceivedJob:
        """Bring a new request to DECODING at `d`, prefilled by `p`."""
        await owner.submit(request_id)
        assert await p.hand_over(await p.claim(request_id), d) == "DONE"
        return await d.take(request_id)

    async def record(self, request_id: str) -> dict[str, str]:
        return await request_record(self.bus, request_id) or {}

    async def state(self, request_id: str) -> tuple[str, int, str]:
        """(state, attempt, holder) of a record."""
        r = await self.record(request_id)
        return (r.get("state", ""), int(r.get("attempt", 0)), r.get("holder", ""))

    async def ttl_ms(self, request_id: str) -> int:
        """TTL of a record: -1 when it has none, -2 when there is no record."""
        return int(await self.bus.command("PTTL", self.keys.request(request_id)))

    async def queued(self) -> list[tuple[str, int]]:
        """(request id, attempt) of every entry on the queue streams, whoever holds it."""
        found = []
        for stream in self.keys.streams:
            for _, fields in await self.bus.command("XRANGE", self.keys.queue(stream), "-", "+"):
                found.append((fields[b"r"].decode(), int(fields[b"a"])))
        return found

    async def num_pending(self, worker_id: str) -> int:
        """Entries that a worker holds on the queue streams."""
        count = "return #redis.call('XPENDING', KEYS[1], 'prefill', '-', '+', 1000, ARGV[1])"
        queues = [self.keys.queue(stream) for stream in self.keys.streams]
        return sum(await self.bus.pipeline([("EVAL", count, 1, queue, worker_id) for queue in queues]))

    async def num_decode_entries(self, worker_id: str) -> int:
        return int(await self.bus.command("XLEN", self.keys.decode(worker_id)))

    async def hints(self, worker_id: str) -> list[tuple[str, str, int]]:
        """(kind, request id, attempt) of every hint but those about roles."""
        entries = await self.bus.command("XRANGE", self.keys.control(worker_id), "-", "+")
        hints = [(f[b"k"].decode(), f[b"r"].decode(), int(f[b"a"])) for _, f in entries]
        return [hint for hint in hints if hint[0] != "role"]

    async def dead_letters(self) -> list[tuple[str, str]]:
        """(source, reason) of every dead letter."""
        entries = await self.bus.command("XRANGE", self.keys.dead, "-", "+")
        return [(f[b"source"].decode(), f[b"reason"].decode()) for _, f in entries]

    async def sweep(self) -> JanitorReport:
        return await sweep_dead(self.bus, record_ttl_s=TTL_S)

    async def wind_down(self) -> None:
        """End every heartbeat and sweep; nothing may be left to anybody."""
        for registry, key in ((self.keys.workers, self.keys.worker), (self.keys.routers, self.keys.router)):
            for member in await self.bus.command("SMEMBERS", registry):
                await self.bus.command("DEL", key(member.decode()))
        await self.sweep()
        assert not await self.bus.command("SMEMBERS", self.keys.workers), "a dead worker stays in the registry"
        assert not await self.bus.command("SMEMBERS", self.keys.routers), "a dead router stays in the registry"
        assert await self.queued() == [], "entries of ended requests stay queued"
