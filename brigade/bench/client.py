"""One streamed completion over HTTP, and when each of its tokens came."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from brigade.core.request import PRIORITY_CLASSES

_PRIORITY_OF = {name: number - PRIORITY_CLASSES.index("standard") for number, name in enumerate(PRIORITY_CLASSES)}
_REFUSALS = frozenset({429, 503})
MAX_ERROR_CHARS = 200


@dataclass(slots=True, kw_only=True)
class Reply:
    """What a client saw. `token_ns` are times of the monotonic clock. `error` is None for an answer that came to its end."""

    token_ns: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    refused: bool = False
    error: str | None = "no answer"


class CompletionClient:
    """Asks one server for completions of exactly so many tokens, greedy, as many at a time as there are callers."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, model: str | None) -> None:
        self._session = session
        self._url = f"{url}/v1/completions"
        self._model = model

    def body(self, prompt: Sequence[int], *, num_tokens: int, priority_class: str) -> bytes:
        """Return the request's body; made ahead of time, so that making it delays nothing."""
        asked: dict[str, Any] = {
            "prompt": prompt,
            "max_tokens": num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        if self._model is not None:
            asked["model"] = self._model
        if priority := _PRIORITY_OF[priority_class]:
            asked["priority"] = priority
        return orjson.dumps(asked)

    async def complete(self, body: bytes, reply: Reply) -> None:
        """Send a request and note its tokens in `reply` as they come, so that what came is known if this is cancelled."""
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                if response.status != 200:
                    text = await response.text()
                    reply.refused = response.status in _REFUSALS
                    reply.error = f"HTTP {response.status}: {text[:MAX_ERROR_CHARS]}"
                    return
                await self._read(response, reply)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            reply.error = f"{type(error).__name__}: {error}"

    async def _read(self, response: aiohttp.ClientResponse, reply: Reply) -> None:
        pending = b""
        async for piece in response.content.iter_any():
            now_ns = time.monotonic_ns()
            *events, pending = (pending + piece).split(b"\n\n")
            for event in events:
                if event == b"data: [DONE]":
                    reply.error = None
                elif event.startswith(b"data: "):
                    self._take(orjson.loads(event[6:]), now_ns, reply)

    def _take(self, event: dict[str, Any], now_ns: int, reply: Reply) -> None:
        if "error" in event:
            reply.error = str(event["error"])[:MAX_ERROR_CHARS]
            return
        for choice in event["choices"]:
            reply.token_ns += [now_ns] * len(choice.get("token_ids") or ())
        if usage := event.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            reply.num_cached_tokens = details.get("cached_tokens") or 0
