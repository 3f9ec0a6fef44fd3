"""What the bus's scripts cost: microseconds of Redis' CPU per call (commandstats) and latency at the caller.

    python -m benchmarks.bus_scripts [--queued 10000] [--rounds 200]

A private Redis with an append-only file, as `brigade up` runs it, and one caller. Redis runs one script at a time, so the
CPU column is what bounds an installation; the latency column holds the client library's work too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.measures import percentile, provenance
from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream, Finish, ReceivedJob, StepFrame
from brigade.bus.inspect import queue_depths
from brigade.bus.janitor import sweep_dead
from brigade.bus.prefill_queue import ClaimedJob, PrefillQueue
from brigade.bus.registry import WorkerLease
from brigade.bus.requests import RequestStore
from brigade.core.errors import BusError
from brigade.core.kv import KVHandle
from brigade.core.messages import DecodeJob, Role, TokensPart, WorkerStatus
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled
from brigade.runtime.redis_server import find_redis_server, free_port, redis_folder, redis_server_spec

TTL_S = 600.0
STATUS = WorkerStatus(
    worker_id="w", host="h", pid=1, model="m", model_revision="r", num_blocks=4096, block_size_tokens=16
)


def spec(request_id: str) -> RequestSpec:
    """A request of 200 prompt tokens."""
    return RequestSpec(
        request_id=request_id,
        prompt_token_ids=tuple(range(200)),
        sampling=SamplingParams(),
        stop=StopParams(max_tokens=64),
        arrival_s=time.time(),
    )


def decode_job(request_id: str) -> DecodeJob:
    handle = KVHandle(
        transport="shm", location="/dev/shm/pool", incarnation="i", worker_id="w",
        blocks=tuple((block, 1) for block in range(13)), num_tokens=200, block_size_tokens=16, block_bytes=196_608,
        dtype="bfloat16", layout="lhd", model_revision="r",
    )  # fmt: skip
    return DecodeJob(request_id=request_id, attempt=1, epoch=1, output_token_ids=(1,), handle=handle)


def part(request_id: str, offset: int, finish_reason: str | None = None) -> TokensPart:
    token = (Sampled(token_id=offset),)
    return TokensPart(request_id=request_id, attempt=1, offset=offset, tokens=token, finish_reason=finish_reason)


class Bench:
    """Calls the scripts in the order of a request's life and measures each kind of call."""

    def __init__(self, bus: Bus, rounds: int) -> None:
        self.bus = bus
        self.rounds = rounds
        self.rows: list[tuple[str, int, float, float, float]] = []
        self.store = RequestStore(bus, "r", record_ttl_s=TTL_S)
        self.lease = WorkerLease(bus, "w", ttl_s=TTL_S)
        self.queue = PrefillQueue(bus, "w", record_ttl_s=TTL_S)
        self.decode = DecodeStream(bus, "w", record_ttl_s=TTL_S)

    async def measure(self, name: str, rounds: int, call: Callable[[int], Awaitable[Any]]) -> list[Any]:
        """Time `call(i)` for each round; return the answers."""
        latencies_ms: list[float] = []
        answers = []
        await self.bus.command("CONFIG", "RESETSTAT")
        for i in range(rounds):
            started_s = time.perf_counter()
            answers.append(await call(i))
            latencies_ms.append((time.perf_counter() - started_s) * 1000)
        stats = await self.bus.command("INFO", "commandstats")
        cpu_us = sum(s["usec"] for command, s in stats.items() if command != "cmdstat_config|resetstat")
        # commands inside a script are counted again under their own names
        cpu_us = stats.get("cmdstat_evalsha", {"usec": cpu_us})["usec"]
        row = (name, rounds, cpu_us / rounds, percentile(latencies_ms, 50), percentile(latencies_ms, 99))
        self.rows.append(row)
        print(f"{row[0]:44s} {row[1]:6d} {row[2]:10.0f} {row[3]:9.2f} {row[4]:9.2f}", flush=True)
        return answers

    async def run(self, num_queued: int) -> None:
        await self.store.heartbeat(ttl_s=TTL_S, status=b"", first=True)
        await self.lease.register(Role.MIXED, 1, STATUS)
        print(f"{'call':44s} {'calls':>6s} {'CPU us':>10s} {'p50 ms':>9s} {'p99 ms':>9s}")
        rounds = self.rounds
        await self.measure("submit 1", num_queued, lambda i: self.store.submit([spec(f"q{i}")]))
        await self.measure(f"window of 64, {num_queued} queued", rounds, lambda _: self.queue.window(64))
        await self.measure(f"queue depths, {num_queued} queued", 5, lambda _: queue_depths(self.bus))
        window = await self.queue.window(16 * rounds)
        chunks = [window[i : i + 16] for i in range(0, len(window) - 15, 16)]
        await self.measure("claim 16", len(chunks), lambda i: self.queue.claim(chunks[i]))
        await self.measure("give back 16", len(chunks), lambda i: self.queue.give_back(chunks[i]))
        claimed: list[ClaimedJob] = []
        for chunk in chunks[: max(2, rounds // 16)]:
            claimed += await self.queue.claim(chunk)

        async def hand_over(i: int) -> None:
            request_id = claimed[i].spec.request_id
            answer = await self.queue.hand_over(claimed[i], part(request_id, 0), "w", decode_job(request_id))
            assert answer == "DONE", answer

        await self.measure("hand over 1", len(claimed), hand_over)
        received: list[ReceivedJob] = []
        while len(received) < len(claimed):
            received += await self.decode.read(new=True)
        await self.measure("admit 1", len(received), lambda i: self.decode.admit([received[i]]))
        await self.steps(received)
        keys = [(f"q{i}", 1) for i in range(num_queued - 64, num_queued)]
        await self.measure("heartbeat of 64", rounds, lambda _: self.lease.beat(STATUS, keys, []))
        ids = [f"q{i}" for i in range(num_queued - 256, num_queued)]
        await self.measure("standings of 256", rounds, lambda _: self.store.standings(ids))
        raised = [spec(f"q{i}") for i in range(num_queued - rounds, num_queued)]
        await self.measure(
            "raise 1",
            rounds,
            lambda i: self.store.raise_attempt(raised[i], believed=1, new=2, prefix=(1, 2, 3), force=False),
        )
        await self.measure("janitor, nobody dead", rounds, lambda _: sweep_dead(self.bus, record_ttl_s=TTL_S))

    async def steps(self, received: list[ReceivedJob]) -> None:
        """Frames of 32 requests: going on, and all ending at once."""
        batch = [r.job.request_id for r in received[:32]]

        def frame(offset: int) -> dict[str, StepFrame]:
            return {"r": StepFrame(parts=[part(request_id, offset) for request_id in batch], finishes=[])}

        await self.measure("step of 32", self.rounds, lambda i: self.decode.publish(frame(i + 1), timeout_s=5))

        def last(i: int) -> dict[str, StepFrame]:
            ends = received[32 * i : 32 * i + 32]
            finishes = [Finish(entry_id=r.entry_id, part=part(r.job.request_id, 9, "stop")) for r in ends]
            return {"r": StepFrame(parts=[], finishes=finishes)}

        await self.measure(
            "step of 32, all end", len(received) // 32, lambda i: self.decode.publish(last(i), timeout_s=5)
        )


async def connect(port: int) -> Bus:
    bus = Bus(f"redis://127.0.0.1:{port}/0", "bench", call_timeout_s=30)
    await bus.open()
    return bus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000, help="requests in the queue")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind")
    options = parser.parse_args()

    async def bench(port: int) -> None:
        bus = await connect(port)
        version = (await bus.command("INFO", "server"))["redis_version"]
        await Bench(bus, options.rounds).run(options.queued)
        await bus.close()
        print(json.dumps({"redis": version, **provenance(["redis", "msgpack"])}, indent=1))

    with redis_folder() as folder:
        port = free_port()
        server = subprocess.Popen(
            redis_server_spec(find_redis_server(), port=port, folder=folder).argv, stdout=subprocess.DEVNULL
        )
        try:
            asyncio.run(bench(port))
        except BusError as e:
            raise SystemExit(f"{e}") from e
        finally:
            server.terminate()
            server.wait(timeout=30)


if __name__ == "__main__":
    main()
