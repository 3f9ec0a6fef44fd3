"""The decode worker's side: its own stream of jobs, admission, frames and finishes of a step, letting go, migration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brigade.bus.client import Argument, Bus, entries_in
from brigade.bus.codec import (
    decode_decode_job,
    decode_spec,
    encode_decode_job,
    encode_frame,
    encode_part,
)
from brigade.bus.frames import bury_decode_entry
from brigade.bus.keys import DECODE_GROUP
from brigade.core.errors import DecodeError
from brigade.core.messages import DecodeJob, PullFailed, TokensPart
from brigade.core.request import RequestSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedJob:
    """A decode job on this worker's stream, with what its record said about the request when it was sent."""

    entry_id: str
    job: DecodeJob
    spec: RequestSpec
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A request that ends with this step's part."""

    entry_id: str
    part: TokensPart


@dataclass(slots=True)
class StepFrame:
    """What one step has for one router: parts that go on, and parts that end their request."""

    parts: list[TokensPart | PullFailed]
    finishes: list[Finish]


class DecodeStream:
    """One worker's calls on `decode:WORKER` and on the records of what it decodes."""

    def __init__(self, bus: Bus, worker_id: str, *, record_ttl_s: float) -> None:
        self._bus = bus
        self._worker = worker_id
        self._key = bus.keys.decode(worker_id)
        self._ttl_ms = int(record_ttl_s * 1000)

    async def read(self, *, new: bool) -> list[ReceivedJob]:
        """Return new jobs, waiting for some, or (`new` false) all jobs delivered before and not yet ended. Raises BusError."""
        if new:
            entries = await self._bus.read_group(self._key, DECODE_GROUP, self._worker, count=64, new=True)
        else:
            answer = await self._bus.command(
                "XREADGROUP", "GROUP", DECODE_GROUP, self._worker, "COUNT", 10000, "STREAMS", self._key, "0"
            )
            entries = [entry for _, found in answer for entry in entries_in(found)]
        received = []
        for entry_id, fields in entries:
            if not fields:  # deleted while it was pending: only the acknowledgement is missing
                await self._drop_entry(entry_id)
                continue
            job_data, spec_data = fields.get(b"j", b""), fields.get(b"s", b"")
            try:
                job, spec = decode_decode_job(job_data), decode_spec(spec_data)
            except DecodeError as e:
                await bury_decode_entry(self._bus, self._worker, entry_id, str(e), job_data + spec_data)
                continue
            owner = fields.get(b"o", b"").decode(errors="replace")
            received.append(ReceivedJob(entry_id=entry_id, job=job, spec=spec, owner=owner))
        return received

    async def pending_ids(self) -> set[str]:
        """Return the entries that were delivered to this worker and not yet ended. Raises BusError."""
        return {entry_id.decode() for entry_id in await self._bus.run("pending", self._worker)}

    async def admit(self, jobs: Sequence[ReceivedJob]) -> list[str]:
        """Record jobs whose KV is in place as DECODING. Returns per job OK, STALE (its entry is dropped) or NO_OWNER.
        Raises BusError; sending again is safe."""
        if not jobs:
            return []
        args: list[Argument] = [self._worker]
        for received in jobs:
            args += [received.job.request_id, received.job.attempt, received.entry_id]
        return [answer.decode() for answer in await self._bus.run("admit", *args)]

    async def publish(self, frames: Mapping[str, StepFrame], *, timeout_s: float) -> list[str]:
        """Publish a step's frames, one entry per router, with its finishes. Returns OK, ALREADY or STALE per finish, in order
        of `frames` and their finishes. Raises BusError; sending again is safe (owners drop what they have)."""
        args: list[Argument] = [self._worker, self._ttl_ms]
        for router, frame in frames.items():
            args += [router, encode_frame(frame.parts), len(frame.finishes)]
            for finish in frame.finishes:
                args += [finish.part.request_id, finish.part.attempt, finish.entry_id, encode_part(finish.part)]
        return [answer.decode() for answer in await self._bus.run("step", *args, timeout_s=timeout_s)]

    async def let_go(self, job: DecodeJob, entry_id: str, reason: str) -> str:
        """Drop a job and, if it is still ours by its record, tell the owner to start the next attempt.
        Returns REPORTED or STALE. Raises BusError."""
        part = encode_part(PullFailed(request_id=job.request_id, attempt=job.attempt, reason=reason))
        answer = await self._bus.run("drop_decode", self._worker, job.request_id, job.attempt, entry_id, part)
        return str(answer.decode())

    async def drop(self, entry_id: str) -> None:
        """Delete the entry of a job whose attempt has ended. Raises BusError."""
        await self._drop_entry(entry_id)

    async def migrate(self, entry_id: str, part: TokensPart | None, target: str, job: DecodeJob) -> str:
        """Move a running decode to `target`. Returns DONE, ALREADY, TARGET or STALE. Raises BusError; the caller does not
        step the request again before it has an answer."""
        args = (job.request_id, job.attempt, entry_id, encode_part(part) if part else b"", target, job.epoch)
        answer = await self._bus.run("migrate", self._worker, *args, encode_decode_job(job))
        return str(answer.decode())

    async def _drop_entry(self, entry_id: str) -> None:
        await self._bus.command("XACK", self._key, DECODE_GROUP, entry_id)
        await self._bus.command("XDEL", self._key, entry_id)
