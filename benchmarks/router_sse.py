"""CPU per token of the router's streaming path alone: accepted token to bytes on the socket. No bus, no workers.

A stand-in for the owner gives every stream one token per step; the clients are a process of their own that reads and
throws away, so this process's CPU time is the router's. Run: python -m benchmarks.router_sse --streams 32
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from brigade.core.answer import AcceptedTokens, AnswerSink
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled
from services.router.app import build_app, build_runner
from services.router.config import RouterConfig
from services.router.metrics import RouterMetrics
from services.router.model_folder import read_served_model
from services.router.text.tokenizer import ModelTokenizer

MODEL = Path(__file__).parents[1] / "models" / "demo"
PROMPT = "Once upon a time, a kind fox named Biscuit lived in a meadow. One night, a great storm came."


class NoAdmin:
    """The benchmark asks for no admin page."""


class SteppingOwner:
    """Gives all streams one token at each step, as a decode worker's frames do."""

    def __init__(self, num_streams: int) -> None:
        self.answers: list[tuple[RequestSpec, AnswerSink]] = []
        self._num_wanted = num_streams
        self.all_are_here = asyncio.Event()

    def submit(self, specs: Sequence[RequestSpec], sinks: Sequence[AnswerSink]) -> None:
        self.answers.extend(zip(specs, sinks, strict=True))
        if len(self.answers) == self._num_wanted:
            self.all_are_here.set()

    def cancel(self, request_id: str) -> None:
        raise AssertionError("no client leaves in this benchmark")

    @property
    def num_unfinished(self) -> int:
        return len(self.answers)

    def is_ready(self) -> str | None:
        return None

    def step(self, index: int) -> None:
        for spec, sink in self.answers:
            token = Sampled(token_id=spec.prompt_token_ids[index % len(spec.prompt_token_ids)])
            reason = "length" if index + 1 == spec.stop.max_tokens else None
            sink.on_tokens(AcceptedTokens(offset=index, tokens=(token,), finish_reason=reason))


def read_streams(port: int, num_streams: int, num_tokens: int, path: str) -> None:
    """Be the clients: open all streams and read them to their ends."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        prompt = (
            {"prompt": PROMPT}
            if path.endswith("/completions") and "chat" not in path
            else {"messages": [{"role": "user", "content": PROMPT}]}
        )
        body = orjson.dumps(prompt | {"max_tokens": num_tokens, "stream": True, "ignore_eos": True})
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        while await reader.read(1 << 16):
            pass
        writer.close()

    async def every() -> None:
        await asyncio.gather(*(one() for _ in range(num_streams)))

    asyncio.run(every())


async def measure(num_streams: int, num_tokens: int, step_s: float, path: str) -> None:
    config = RouterConfig()
    model = read_served_model(MODEL)
    metrics = RouterMetrics(CollectorRegistry(), model_name=model.name, now_s=time.perf_counter)
    owner = SteppingOwner(num_streams)
    app = build_app(
        owner=owner,
        tokenizer=ModelTokenizer.from_folder(MODEL),
        model=model,
        config=config,
        admin=NoAdmin(),  # type: ignore[arg-type]
        metrics=metrics,
    )
    runner = build_runner(app, config)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    clients = multiprocessing.get_context("spawn").Process(
        target=read_streams, args=(port, num_streams, num_tokens, path)
    )
    clients.start()
    await owner.all_are_here.wait()
    before, wall_s = os.times(), time.perf_counter()
    for index in range(num_tokens):
        owner.step(index)
        await asyncio.sleep(step_s)
    after, wall_s = os.times(), time.perf_counter() - wall_s
    await asyncio.to_thread(clients.join)
    await runner.cleanup()
    total = num_streams * num_tokens
    user_us, system_us = (after.user - before.user) / total * 1e6, (after.system - before.system) / total * 1e6
    print(
        f"{path}: {num_streams} streams x {num_tokens} tokens: {user_us + system_us:.1f} us CPU per token "
        f"({system_us:.1f} in the kernel), "
        f"{total / wall_s:.0f} tokens/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--step-s", type=float, default=0.005)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    for path in ("/v1/completions", "/v1/chat/completions"):
        asyncio.run(measure(arguments.streams, arguments.tokens, arguments.step_s, path))


if __name__ == "__main__":
    main()
