"""The owner's side of `tokens:ROUTER`: frames by cursor, trimmed behind it. The cursor goes back to the start when Redis
may have forgotten (rule 2d); whoever reads must have frozen its requests before it takes the next frame."""

from __future__ import annotations

from brigade.bus.client import Bus
from brigade.bus.codec import decode_frame
from brigade.core.errors import DecodeError
from brigade.core.messages import FramePart

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
        entries = await self._bus.read(self._key, self._cursor, count=256)
        parts: list[FramePart] = []
        for entry_id, fields in entries:
            data = fields.get(b"p", b"")
            try:
                parts += decode_frame(data)
            except DecodeError as e:
                await bury(self._bus, self._key, str(e), data)
            self._cursor = entry_id
        self._num_since_trim += len(entries)
        if self._num_since_trim >= _TRIM_EVERY:
            self._num_since_trim = 0
            await self._bus.command("XTRIM", self._key, "MINID", self._cursor)
        return parts

    async def has_unread(self) -> bool:
        """Whether an entry lies beyond the cursor (a FINISHED record with nothing left to read is a gap)."""
        return bool(
            await self._bus.command(
                "XRANGE", self._key, f"({self._cursor}" if self._cursor != "0" else "-", "+", "COUNT", 1
            )
        )


async def bury(bus: Bus, source: str, reason: str, data: bytes) -> None:
    """Put a poison entry on the dead-letter stream."""
    await bus.command("XADD", bus.keys.dead, "MAXLEN", "~", 1000, "*", "source", source, "reason", reason, "data", data)
