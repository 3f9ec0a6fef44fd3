"""The two answering endpoints: read the ask, hand its branches to the owner, and bring the answer to the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from brigade.core.errors import Overloaded
from services.router.answering.branches import Branches
from services.router.answering.delivery import AnsweringParts, Delivery, Reply
from services.router.answering.streamed import StreamedAnswer
from services.router.answering.whole import WholeAnswer
from services.router.json_http import read_json
from services.router.middleware import REQUEST_ID
from services.router.openai.ask import Ask
from services.router.openai.reply import Dialect, ReplyHead
from services.router.request_ids import reply_id

CLASS_HEADER = "X-Brigade-Class"
_OVERLOAD_RETRY_AFTER_S = 1.0


class AnsweringEndpoint:
    """Serves one dialect."""

    def __init__(
        self, parts: AnsweringParts, *, dialect: Dialect, read_ask: Callable[[object], Awaitable[Ask]]
    ) -> None:
        self._parts = parts
        self._dialect = dialect
        self._read_ask = read_ask

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request. When the client leaves, this task is cancelled, and with it what it asked for."""
        parts = self._parts
        received_s = parts.metrics.now_s()
        arrival_s = parts.wall_s()
        ask = await self._read_ask(await read_json(request, timeout_s=parts.config.body_timeout_s))
        reply = Reply(
            head=ReplyHead(
                reply_id=reply_id(self._dialect.id_prefix, request[REQUEST_ID]),
                created_s=int(arrival_s),
                model_name=parts.model.name,
            ),
            dialect=self._dialect,
            headers={CLASS_HEADER: ask.standing.priority_class},
        )
        delivery: Delivery = (StreamedAnswer if ask.shape.stream else WholeAnswer)(ask, reply, parts)
        branches = Branches(
            ask,
            reply_id=reply.head.reply_id,
            arrival_s=arrival_s,
            received_s=received_s,
            tokenizer=parts.tokenizer,
            metrics=parts.metrics,
            collector=delivery,
        )
        self._submit(ask, branches)
        try:
            return await delivery.deliver(request)
        finally:
            for request_id in branches.abandon():
                parts.owner.cancel(request_id)

    def _submit(self, ask: Ask, branches: Branches) -> None:
        parts = self._parts
        limit = parts.config.max_unfinished
        if parts.owner.num_unfinished + len(branches.all) > limit:
            raise Overloaded(
                f"this router has its limit of {limit} answers in the making", retry_after_s=_OVERLOAD_RETRY_AFTER_S
            )
        parts.owner.submit(branches.specs, branches.sinks)
        parts.metrics.prompt_tokens.inc(ask.num_prompt_tokens)
