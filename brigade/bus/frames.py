"""The owner's side of `tokens:ROUTER`: frames by cursor, trimmed behind it. The cursor goes back to the start when Redis
may have forgotten (rule 2d); whoever reads must have frozen its requests before it takes the next frame."""

from __future__ import annotations

from brigade.bus.client import Bus, entries_in
from brigade.bus.codec import decode_frame, encode_part
from brigade.bus.keys import DECODE_GROUP, PREFILL_GROUP
from brigade.core.errors import DecodeError
from brigade.core.messages import FramePart, PullFailed

_TRIM_EVERY = 256


class FrameReader:
    """Reads frames of one router in stream order."""

    def __init__(self, bus: Bus, router_id: str) -> None:
        self._bus = bus
        self._key = bus.keys.tokens(router_id)
        self._cursor = "0"
        self._num_since_trim = 0

    def rewind(self) -> None:
        """Read from the first entry again: ids may have gone back."""
        self._cursor = "0"

    async def read(self) -> list[FramePart]:
        """Return the parts of the next frames in order, empty when none came in time. Raises BusError.

        A frame that cannot be decoded goes to the dead-letter stream; its requests notice the gap.
        """
        if self._num_since_trim >= _TRIM_EVERY:  # before the read: a failure here must not lose what was read
            await self._bus.command("XTRIM", self._key, "MINID", self._cursor)
            self._num_since_trim = 0
        entries = await self._bus.read(self._key, self._cursor, count=256)
        parts: list[FramePart] = []
        for _, fields in entries:
            data = fields.get(b"p", b"")
            try:
                parts += decode_frame(data)
            except DecodeError as e:
                await bury(self._bus, self._key, str(e), data)
        if entries:
            self._cursor = entries[-1][0]
            self._num_since_trim += len(entries)
        return parts

    async def last_id(self) -> str:
        """Return the id of the newest entry, '0' when there is none. Raises BusError."""
        newest = await self._bus.command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0"

    def has_passed(self, entry_id: str) -> bool:
        """Whether everything up to this entry has been read (what is FINISHED by then and incomplete has lost a frame)."""
        return _order(entry_id) <= _order(self._cursor)


async def bury(bus: Bus, source: str, reason: str, data: bytes) -> None:
    """Put a poison entry on the dead-letter stream."""
    await bus.command("XADD", bus.keys.dead, "MAXLEN", "~", 1000, "*", "source", source, "reason", reason, "data", data)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)


async def bury_prefill_entry(bus: Bus, stream: str, entry_id: str, reason: str, data: bytes) -> None:
    """Bury an entry of a queue stream. If a living request waits for it, its owner is told. Raises BusError."""
    await _bury_entry(bus, PREFILL_GROUP, stream, bus.keys.queue(stream), entry_id, reason, data)


async def bury_decode_entry(bus: Bus, worker_id: str, entry_id: str, reason: str, data: bytes) -> None:
    """Bury an entry of a worker's decode stream. If a living request waits for it, its owner is told. Raises BusError."""
    await _bury_entry(bus, DECODE_GROUP, worker_id, bus.keys.decode(worker_id), entry_id, reason, data)


async def _bury_entry(bus: Bus, group: str, name: str, key: str, entry_id: str, reason: str, data: bytes) -> None:
    found = entries_in(await bus.command("XRANGE", key, entry_id, entry_id))
    fields = found[0][1] if found else {}
    # the scripts write request and attempt beside the message, so that they can be read when the message cannot
    request_id = fields.get(b"r", b"").decode(errors="replace")
    attempt = fields.get(b"a", b"")
    number = int(attempt) if attempt.isdigit() else 0
    part = encode_part(PullFailed(request_id=request_id, attempt=number, reason=f"unreadable entry: {reason}"))
    await bus.run("bury", group, name, entry_id, f"{key} {entry_id}", reason, data, request_id, number, part)
