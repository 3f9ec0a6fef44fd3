"""The prefill worker's side of the queue: look at a window, claim chosen entries, give back, hand over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brigade.bus.client import Argument, Bus
from brigade.bus.codec import (
    decode_prefill_job,
    decode_spec,
    encode_decode_job,
    encode_part,
    unpack_token_ids,
)
from brigade.bus.frames import bury_prefill_entry
from brigade.core.errors import DecodeError
from brigade.core.messages import DecodeJob, TokensPart, WaitingJob
from brigade.core.request import RequestSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A prefill that this worker holds: `prefix` are accepted output tokens, prefilled after the prompt."""

    waiting: WaitingJob
    spec: RequestSpec
    prefix: tuple[int, ...]
    owner: str


class PrefillQueue:
    """One worker's calls on the queue streams."""

    def __init__(self, bus: Bus, worker_id: str, *, record_ttl_s: float) -> None:
        self._bus = bus
        self._worker = worker_id
        self._ttl_ms = int(record_ttl_s * 1000)
        self._wake_cursor = "0"

    async def window(self, limit_per_stream: int) -> list[WaitingJob]:
        """Return the oldest waiting jobs of every stream, at most `limit_per_stream` of each. Raises BusError."""
        flat = await self._bus.run("window", limit_per_stream, *self._bus.keys.streams)
        jobs = []
        for stream, entry_id, data in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            waiting = await self._waiting(stream, entry_id, data)
            jobs += [waiting] if waiting else []
        return jobs

    async def wait_for_work(self) -> None:
        """Return when something was queued since the last call, or after the bus's block time. Raises BusError."""
        entries = await self._bus.read(self._bus.keys.wake, self._wake_cursor, count=100)
        if entries:
            self._wake_cursor = entries[-1][0]

    def forget_cursor(self) -> None:
        """Start anew on the wake stream: its ids may have gone back."""
        self._wake_cursor = "0"

    async def claim(self, chosen: Sequence[WaitingJob]) -> list[ClaimedJob]:
        """Claim exactly these entries; losers of a race get fewer. Raises BusError; may then have been executed, so the
        caller looks at `own_pending` before anything else."""
        if not chosen:
            return []
        args: list[Argument] = [self._worker]
        for waiting in chosen:
            args += [waiting.stream, waiting.entry_id, waiting.job.request_id, waiting.job.attempt]
        answers = await self._bus.run("claim", *args)
        if len(answers) == 1 and answers[0][0] in (b"NO_HEARTBEAT", b"NOT_ACCEPTING"):
            return []
        claimed = []
        for waiting, (status, *rest) in zip(chosen, answers, strict=True):
            if status == b"OK":
                job = await self._claimed(waiting, *rest)
                claimed += [job] if job else []
        return claimed

    async def own_pending(self) -> list[ClaimedJob]:
        """Return what this worker holds by the queue and the records; stale entries are dropped. Raises BusError."""
        answers = await self._bus.run("own_prefills", self._worker, *self._bus.keys.streams)
        claimed = []
        for stream, entry_id, data, *rest in answers:
            waiting = await self._waiting(stream, entry_id, data)
            job = await self._claimed(waiting, *rest) if waiting else None
            claimed += [job] if job else []
        return claimed

    async def give_back(self, jobs: Sequence[WaitingJob]) -> int:
        """Return claimed jobs to the queue. Raises BusError."""
        args: list[Argument] = [self._worker]
        for waiting in jobs:
            args += [waiting.stream, waiting.entry_id, waiting.job.request_id, waiting.job.attempt]
        return int(await self._bus.run("give_back", *args)) if jobs else 0

    async def hand_over(self, claimed: ClaimedJob, part: TokensPart, target: str, job: DecodeJob) -> str:
        """End a prefill with its first token and a decode job for `target`. Returns DONE, ALREADY, STALE, TARGET (place
        it elsewhere) or NO_OWNER. Raises BusError; sending again is safe."""
        return await self._end(claimed, part, target, job.epoch, encode_decode_job(job))

    async def finish(self, claimed: ClaimedJob, part: TokensPart) -> str:
        """End a request whose first token is its last. Returns DONE, ALREADY, STALE or NO_OWNER. Raises BusError."""
        return await self._end(claimed, part, "", 0, b"")

    async def _end(self, claimed: ClaimedJob, part: TokensPart, target: str, epoch: int, job: bytes) -> str:
        w = claimed.waiting
        entry = (w.stream, w.entry_id, w.job.request_id, w.job.attempt)
        answer = await self._bus.run(
            "hand_over", self._worker, *entry, encode_part(part), target, epoch, job, self._ttl_ms
        )
        return str(answer.decode())

    async def _claimed(self, waiting: WaitingJob, spec: bytes, prefix: bytes, owner: bytes) -> ClaimedJob | None:
        try:
            return ClaimedJob(
                waiting=waiting, spec=decode_spec(spec), prefix=unpack_token_ids(prefix), owner=owner.decode()
            )
        except DecodeError as e:
            await bury_prefill_entry(self._bus, waiting.stream, waiting.entry_id, str(e), spec)
            return None

    async def _waiting(self, stream: bytes, entry_id: bytes, data: bytes) -> WaitingJob | None:
        """Decode a queue entry; None when it could not be read and was buried."""
        try:
            job = decode_prefill_job(data)
        except DecodeError as e:
            await bury_prefill_entry(self._bus, stream.decode(), entry_id.decode(), str(e), data)
            return None
        return WaitingJob(stream=stream.decode(), entry_id=entry_id.decode(), job=job)
