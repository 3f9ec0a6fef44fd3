"""What an operator may ask: queue depths and the record of a request. Read only; the same answer from every router."""

from __future__ import annotations

import time
from dataclasses import dataclass

from brigade.bus.client import Bus
from brigade.bus.codec import decode_prefill_job
from brigade.core.errors import DecodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """One stream: what waits in it (claimed entries, which are being prefilled, apart) and the age of its head."""

    priority_class: str
    band: int
    num_waiting: int
    num_waiting_tokens: int
    num_prefilling: int
    head_age_s: float | None


async def queue_depths(bus: Bus, *, now_s: float | None = None) -> list[QueueDepth]:
    """Return the depth of every stream. `now_s` is wall-clock time. Raises BusError."""
    now_s = time.time() if now_s is None else now_s
    depths = []
    names = bus.keys.streams
    lengths = await bus.pipeline([("XLEN", bus.keys.queue(s)) for s in names])
    for stream, length in zip(names, lengths, strict=True):
        _, cls, band = stream.split(":")
        waiting = await bus.run("window", 100_000, stream) if length else []
        jobs = []
        for data in waiting[2::3]:
            try:
                jobs.append(decode_prefill_job(data))
            except DecodeError:
                continue  # a poison entry: the next worker that meets it buries it
        depths.append(
            QueueDepth(
                priority_class=cls,
                band=int(band),
                num_waiting=len(jobs),
                num_waiting_tokens=sum(job.num_prefill_tokens for job in jobs),
                num_prefilling=max(0, length - len(jobs)),
                head_age_s=max(0.0, now_s - min(job.arrival_s for job in jobs)) if jobs else None,
            )
        )
    return depths


async def request_record(bus: Bus, request_id: str) -> dict[str, str] | None:
    """Return the fields of a request's record but for prompt and parameters, or None. Raises BusError."""
    names: tuple[str, ...] = (
        "state",
        "attempt",
        "holder",
        "owner",
        "prefiller",
        "class",
        "stream",
        "arrival",
        "nprompt",
        "reason",
    )
    names += ("t_queued", "t_claimed", "t_handed", "t_admitted", "t_ended")
    values = await bus.command("HMGET", bus.keys.request(request_id), *names)
    if values[0] is None:
        return None
    return {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
