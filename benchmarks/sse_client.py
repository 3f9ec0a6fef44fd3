"""A small streaming client for /v1/completions, cheap enough not to be what is measured. One connection per request.

How tokens are counted is the caller's choice: `token_ids` asks our router for them and stamps each token, `usage` is what
an ordinary client gets (each event stamps one token, the sum is taken from the usage), `events` trusts nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Literal

from benchmarks.measures import RequestTimes

DEADLINE_S = 600.0
Counting = Literal["token_ids", "usage", "events"]
_ASKS: dict[Counting, dict[str, Any]] = {
    "token_ids": {"ignore_eos": True, "return_token_ids": True},
    "usage": {"ignore_eos": True, "stream_options": {"include_usage": True}},
    "events": {},
}


async def complete(
    port: int, prompt: Sequence[int] | str, *, model: str, num_tokens: int, counting: Counting
) -> RequestTimes:
    """Stream one greedy completion of `num_tokens` tokens. Raises RuntimeError for any other answer."""
    asked = {"model": model, "prompt": prompt, "stream": True, "temperature": 0, "max_tokens": num_tokens}
    body = json.dumps(asked | _ASKS[counting]).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    token_s: list[float] = []
    num_used: int | None = None
    async with asyncio.timeout(DEADLINE_S):
        sent_s = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            writer.write(head.encode() + body)
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not headers.startswith(b"http/1.1 200"):
                raise RuntimeError((headers + await reader.read()).decode(errors="replace"))
            pending = b""
            async for piece in _chunks(reader):
                now_s = time.monotonic()
                *events, pending = (pending + piece).split(b"\n\n")
                for event in events:
                    data = _parse(event)
                    if data is None:
                        continue
                    if usage := data.get("usage"):
                        num_used = usage["completion_tokens"]
                    if data.get("choices"):
                        ids = data["choices"][0].get("token_ids")
                        token_s += [now_s] * (len(ids or ()) if counting == "token_ids" else 1)
        finally:
            writer.close()
    num_come = {"token_ids": len(token_s), "usage": num_used, "events": num_tokens}[counting]
    if num_come != num_tokens:
        raise RuntimeError(f"{num_come} tokens came, {num_tokens} were asked for")
    return RequestTimes(sent_s=sent_s, token_s=tuple(token_s))


async def closed_loop(
    port: int, requests: Iterable[tuple[Sequence[int] | str, int]], *, model: str, concurrency: int, counting: Counting
) -> list[RequestTimes]:
    """Answer all (prompt, number of tokens), `concurrency` at a time."""
    waiting = deque(requests)
    times: list[RequestTimes] = []

    async def one_after_the_other() -> None:
        while waiting:
            prompt, num_tokens = waiting.popleft()
            times.append(await complete(port, prompt, model=model, num_tokens=num_tokens, counting=counting))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_the_other())
    return times


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the pieces of a body in chunked transfer encoding."""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


def _parse(event: bytes) -> dict[str, Any] | None:
    """Return an event's object, None for [DONE] and comments. Raises RuntimeError for an error event."""
    if not event.startswith(b"data: ") or event == b"data: [DONE]":
        return None
    data: dict[str, Any] = json.loads(event[6:])
    if "error" in data:
        raise RuntimeError(f"the stream ended with {data['error']}")
    return data
