"""Answers as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from brigade.core.errors import BrigadeError
from services.router.answering.chunk_encoder import DONE_EVENT, ChunkEncoder, sse_event
from services.router.answering.client_buffer import ClientBuffer
from services.router.answering.delivery import AnsweringParts, Reply
from services.router.answering.part import Part
from services.router.error_body import error_reply
from services.router.openai.ask import Ask

_WRITE_AT_ONCE_BYTES = 32 * 1024
"""A write of up to this many bytes onto an empty transport cannot block: it stays below asyncio's high-water mark."""

_SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class StreamedAnswer:
    """Encodes parts as they come into the client's buffer, and writes what has gathered there."""

    def __init__(self, ask: Ask, reply: Reply, parts: AnsweringParts) -> None:
        self._ask = ask
        self._reply = reply
        self._config = parts.config
        self._metrics = parts.metrics
        self._transport: asyncio.Transport | None = None
        self._buffer = ClientBuffer(parts.config.max_client_buffer_bytes, self._cut)
        self._encoders = [
            ChunkEncoder(
                dialect=reply.dialect,
                head=reply.head,
                index=index,
                shape=ask.shape,
                show_logprobs=ask.sampling.num_logprobs is not None,
                prompt_token_ids=ask.prompts[index // ask.n].token_ids if ask.shape.return_token_ids else None,
                tokenizer=parts.tokenizer,
            )
            for index in range(len(ask.prompts) * ask.n)
        ]

    def on_part(self, index: int, part: Part, usage: dict[str, Any] | None) -> None:
        self._buffer.put(self._encoders[index].encode(part, usage))

    def on_end(self, usage: dict[str, Any]) -> None:
        if self._ask.shape.include_usage:
            self._buffer.put(sse_event(self._reply.dialect.usage_chunk(self._reply.head, usage)))
        self._buffer.put(DONE_EVENT)
        self._buffer.close()

    def on_error(self, error: BrigadeError) -> None:
        self._buffer.close(error)

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        """Stream the answer. The head is sent with the first event, so that an earlier error keeps its own status."""
        self._transport = request.transport
        data = await self._buffer.take()
        if self._buffer.error is not None:
            raise self._buffer.error
        response = web.StreamResponse(headers=_SSE_HEADERS | dict(self._reply.headers))
        await response.prepare(request)
        while data:
            await self._write(response, data)
            data = await self._buffer.take()
        if self._buffer.error is not None:
            await self._write(response, sse_event(error_reply(self._buffer.error).body))
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write, and cut the client if it makes no room in time. A deadline is armed only where one can be needed."""
        transport = self._transport
        assert transport is not None
        if transport.get_write_buffer_size() == 0 and len(data) <= _WRITE_AT_ONCE_BYTES:
            await response.write(data)
            return
        try:
            async with asyncio.timeout(self._config.slow_client_timeout_s):
                await response.write(data)
        except TimeoutError:
            self._cut()

    def _cut(self) -> None:
        """End a connection whose client does not read; what is buffered for it is dropped."""
        self._metrics.on_client_cut()
        if self._transport is not None:
            self._transport.abort()
