"""What an operator may ask: queue depths and the record of a request. Read only; the same answer from every router."""

from __future__ import annotations

import time
from dataclasses import dataclass

from brigade.bus.client import Bus
from brigade.bus.codec import decode_prefill_job
from brigade.core.errors import DecodeError
from brigade.core.messages import PrefillJob

_PAGE = 500


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
        waiting, num_prefilling = await _entries(bus, stream) if length else ([], 0)
        depths.append(
            QueueDepth(
                priority_class=cls,
                band=int(band),
                num_waiting=len(waiting),
                num_waiting_tokens=sum(job.num_prefill_tokens for job in waiting),
                num_prefilling=num_prefilling,
                head_age_s=max(0.0, now_s - min(job.arrival_s for job in waiting)) if waiting else None,
            )
        )
    return depths


async def _entries(bus: Bus, stream: str) -> tuple[list[PrefillJob], int]:
    """Return the waiting jobs of a stream and the number of claimed ones, page by page: a long queue must not hold Redis
    up for an operator's question."""
    waiting: list[PrefillJob] = []
    num_prefilling = 0
    start = "-"
    while True:
        flat = await bus.run("depth", stream, start, _PAGE)
        for data, is_claimed in zip(flat[1::3], flat[2::3], strict=True):
            if is_claimed:
                num_prefilling += 1
                continue
            try:
                waiting.append(decode_prefill_job(data))
            except DecodeError:
                continue  # a poison entry: the next worker that meets it buries it
        if len(flat) < 3 * _PAGE:
            return waiting, num_prefilling
        start = f"({flat[-3].decode()}"


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
