"""The connection to one client, which may read slowly: every wait for it has a deadline, and whoever misses it is cut."""

from __future__ import annotations

import asyncio

from aiohttp import web

from services.router.metrics import RouterMetrics

_WRITE_AT_ONCE_BYTES = 32 * 1024
"""A write of up to this many bytes onto an empty transport cannot block: it stays below asyncio's high-water mark."""


class ClientLine:
    """Sends to the client of one request."""

    def __init__(self, request: web.Request, metrics: RouterMetrics, *, slow_client_timeout_s: float) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before its answer began")
        self._transport = transport
        self._metrics = metrics
        self._timeout_s = slow_client_timeout_s

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write a part of a stream. A deadline is armed only where one can be needed."""
        if self._transport.get_write_buffer_size() == 0 and len(data) <= _WRITE_AT_ONCE_BYTES:
            await response.write(data)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await response.write(data)
        except TimeoutError:
            self.cut()

    async def finish(self, response: web.StreamResponse) -> None:
        """End a response and wait until the client has taken it: an answer nobody reads keeps no connection open."""
        # every byte that waits now counts as too many, so that the response's end waits for all of them
        self._transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(self._timeout_s):
                await response.write_eof()
        except TimeoutError:
            self.cut()
        else:
            self._transport.set_write_buffer_limits()

    def cut(self) -> None:
        """End the connection; what is buffered for the client is dropped."""
        self._metrics.on_client_cut()
        self._transport.abort()
