"""A small streaming client for /v1/completions, cheap enough not to be what is measured. One connection per request."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measures import RequestTimes

DEADLINE_S = 600.0


async def complete(
    port: int, prompt: Sequence[int] | str, *, model: str, num_tokens: int | None, extra: dict[str, Any]
) -> RequestTimes:
    """Stream one greedy completion. With `num_tokens` None every event counts as one token. Any other answer raises."""
    body = json.dumps({"model": model, "prompt": prompt, "stream": True, "temperature": 0, **extra}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    token_s: list[float] = []
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
                    token_s += [now_s] * _num_tokens(event, counts_events=num_tokens is None)
        finally:
            writer.close()
    if num_tokens is not None and len(token_s) != num_tokens:
        raise RuntimeError(f"{len(token_s)} tokens came, {num_tokens} were asked for")
    return RequestTimes(sent_s=sent_s, token_s=tuple(token_s))


async def closed_loop(
    port: int, requests: Iterable[tuple[Sequence[int] | str, int]], *, model: str, concurrency: int, ours: bool
) -> list[RequestTimes]:
    """Answer all (prompt, number of tokens), `concurrency` at a time."""
    waiting = deque(requests)
    times: list[RequestTimes] = []

    async def one_after_the_other() -> None:
        while waiting:
            prompt, num_tokens = waiting.popleft()
            extra: dict[str, Any] = {"max_tokens": num_tokens}
            if ours:
                extra |= {"ignore_eos": True, "return_token_ids": True}
            expected = num_tokens if ours else None
            times.append(await complete(port, prompt, model=model, num_tokens=expected, extra=extra))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_the_other())
    return times


async def _chunks(reader: asyncio.StreamReader) -> Any:
    """Yield the pieces of a body in chunked transfer encoding."""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


def _num_tokens(event: bytes, *, counts_events: bool) -> int:
    if not event.startswith(b"data: ") or event == b"data: [DONE]":
        return 0
    data = json.loads(event[6:])
    if "error" in data:
        raise RuntimeError(f"the stream ended with {data['error']}")
    if not data.get("choices"):
        return 0
    return 1 if counts_events else len(data["choices"][0].get("token_ids") or ())
