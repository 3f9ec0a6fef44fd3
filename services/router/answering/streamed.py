"""Answers as a stream of server-sent events."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from brigade.core.errors import BrigadeError
from services.router.answering.chunk_encoder import DONE_EVENT, ChunkEncoder, sse_event
from services.router.answering.client_buffer import ClientBuffer
from services.router.answering.client_line import ClientLine
from services.router.answering.delivery import AnsweringParts, Reply
from services.router.answering.part import Part
from services.router.error_body import error_reply
from services.router.openai.ask import Ask

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
        self._line: ClientLine | None = None
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
        line = self._line = ClientLine(request, self._metrics, slow_client_timeout_s=self._config.slow_client_timeout_s)
        data = await self._buffer.take()
        if self._buffer.error is not None:
            raise self._buffer.error
        response = web.StreamResponse(headers=_SSE_HEADERS | dict(self._reply.headers))
        await response.prepare(request)
        while data:
            await line.write(response, data)
            data = await self._buffer.take()
        if self._buffer.error is not None:
            await line.write(response, sse_event(error_reply(self._buffer.error).body))
        await line.finish(response)
        return response

    def _cut(self) -> None:
        """Cut a client whose unread answer has grown beyond its buffer."""
        assert self._line is not None, "nothing is put before the answer is delivered"
        self._line.cut()
