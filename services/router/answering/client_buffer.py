"""What waits to be written to one client. Bounded, so that a client that does not read costs neither memory nor time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brigade.core.errors import BrigadeError


class ClientBuffer:
    """Bytes from the branches (put from the event loop, never blocking) to the one writer of a response.

    `on_overflow` is called once when unread bytes exceed the limit; what comes later is dropped.
    """

    __slots__ = ("_chunks", "_is_closed", "_max_bytes", "_on_overflow", "_size_bytes", "_waiter", "error")

    def __init__(self, max_bytes: int, on_overflow: Callable[[], None]) -> None:
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._on_overflow = on_overflow
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None
        self.error: BrigadeError | None = None

    @property
    def is_drained(self) -> bool:
        """True when nothing is left to write and nothing will come."""
        return self._is_closed and not self._chunks

    def put(self, data: bytes) -> None:
        if self._is_closed:
            return
        self._chunks.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > self._max_bytes:
            self.close()
            self._on_overflow()
        self._wake()

    def close(self, error: BrigadeError | None = None) -> None:
        """Say that nothing more comes; `error` is why, where the answer did not end well."""
        if not self._is_closed:
            self._is_closed = True
            self.error = error
            self._wake()

    async def take(self) -> bytes:
        """Wait for bytes and return all that have gathered; empty only when the buffer is closed."""
        while not self._chunks and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks = self._chunks, []
        self._size_bytes = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
