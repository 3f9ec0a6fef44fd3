"""Answers in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from brigade.core.errors import BrigadeError
from brigade.core.step import Sampled
from services.router.answering.client_line import ClientLine
from services.router.answering.delivery import AnsweringParts, Reply
from services.router.answering.part import Part
from services.router.json_http import json_response
from services.router.openai.ask import Ask
from services.router.openai.reply import Choice


class _ChoiceSoFar:
    """The parts of one choice, put together at the end."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.tokens: list[Sampled] = []
        self.text_offsets: list[int] = []
        self.last = Part(text="")

    def add(self, part: Part) -> None:
        self.texts.append(part.text)
        self.tokens.extend(part.tokens)
        self.text_offsets.extend(part.text_offsets)
        self.last = part

    def whole(self) -> Part:
        return Part(
            text="".join(self.texts),
            tokens=self.tokens,
            text_offsets=self.text_offsets,
            finish_reason=self.last.finish_reason,
            stop_reason=self.last.stop_reason,
        )


class WholeAnswer:
    """Gathers every choice and sends one JSON object."""

    def __init__(self, ask: Ask, reply: Reply, parts: AnsweringParts) -> None:
        self._ask = ask
        self._reply = reply
        self._parts = parts
        self._choices = [_ChoiceSoFar() for _ in range(len(ask.prompts) * ask.n)]
        self._usage: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def on_part(self, index: int, part: Part, usage: dict[str, Any] | None) -> None:
        self._choices[index].add(part)

    def on_end(self, usage: dict[str, Any]) -> None:
        if not self._usage.done():
            self._usage.set_result(usage)

    def on_error(self, error: BrigadeError) -> None:
        if not self._usage.done():
            self._usage.set_exception(error)

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        usage = await self._usage
        shape = self._ask.shape
        choices = [
            Choice(
                index=index,
                part=choice.whole(),
                show_logprobs=self._ask.sampling.num_logprobs is not None,
                show_token_ids=shape.return_token_ids,
                prompt_token_ids=self._ask.prompts[index // self._ask.n].token_ids if shape.return_token_ids else None,
            )
            for index, choice in enumerate(self._choices)
        ]
        content = self._reply.dialect.whole(self._reply.head, choices, usage, self._parts.tokenizer)
        response = json_response(content, headers=self._reply.headers)
        line = ClientLine(request, self._parts.metrics, slow_client_timeout_s=self._parts.config.slow_client_timeout_s)
        await response.prepare(request)
        await line.finish(response)
        return response
