"""Times what the host adds around steps, and pulls of KV through shared memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median_low

from brigade.core.kv import KVHandle
from brigade.core.step import Engine
from brigade.kv.arena import Arena
from brigade.kv.shm import SharedMemoryTransport
from brigade.profiling.points import Point
from brigade.profiling.stepping import slices_of

_MAX_ARENA_BYTES = 64 * 2**20
_BLOCK_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def time_host_step_ns(
    engine: Engine, *, batch: int, num_steps: int, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> int:
    """Return the median of wall time less engine time of a decode step, as a worker's loop drives the engine.

    The loop makes the slices, hands them to the engine's own thread and wakes up with the answer. What a worker does for its
    requests beside that (streams, leases, metrics) is not in it.
    """
    return asyncio.run(_drive(engine, Point(batch=batch, context_tokens=16), num_steps, clock_ns))


async def _drive(engine: Engine, point: Point, num_steps: int, clock_ns: Callable[[], int]) -> int:
    engine_ns: list[int] = []

    def step() -> None:
        start_ns = clock_ns()
        engine.step(slices)
        engine_ns.append(clock_ns() - start_ns)

    overheads = []
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="engine") as thread:
        for _ in range(num_steps):
            start_ns = clock_ns()
            slices = slices_of(engine, point)
            await loop.run_in_executor(thread, step)
            overheads.append(clock_ns() - start_ns - engine_ns[-1])
    return median_low(overheads)


def time_transfers(
    *,
    directory: str,
    block_bytes: int,
    block_size_tokens: int,
    num_rounds: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> list[tuple[int, int]]:
    """Return (tokens, duration in ns) of pulls of whole blocks out of a pool in shared memory. ConfigError as `Arena`."""
    counts = [count for count in _BLOCK_COUNTS if count == 1 or count * block_bytes <= _MAX_ARENA_BYTES]
    transport = SharedMemoryTransport()
    destination = memoryview(bytearray(counts[-1] * block_bytes))
    views = [destination[i * block_bytes : (i + 1) * block_bytes] for i in range(counts[-1])]
    durations: dict[int, list[int]] = {count: [] for count in counts}
    with Arena(
        directory=directory,
        installation="profile",
        worker_id="profile",
        num_blocks=counts[-1],
        block_bytes=block_bytes,
    ) as arena:
        for _ in range(num_rounds + 1):
            for count in counts:
                handle = _handle(arena, count, block_size_tokens)
                start_ns = clock_ns()
                transport.fetch(handle, [(i, views[i]) for i in range(count)])
                durations[count].append(clock_ns() - start_ns)
        transport.close()
    # The first round maps the file and touches its pages; a worker pays for that once in its life.
    return [(count * block_size_tokens, median_low(found[1:])) for count, found in durations.items()]


def _handle(arena: Arena, num_blocks: int, block_size_tokens: int) -> KVHandle:
    return KVHandle(
        transport="shm",
        location=arena.location,
        incarnation=arena.incarnation,
        worker_id="profile",
        blocks=tuple((block, arena.generation(block)) for block in range(num_blocks)),
        num_tokens=num_blocks * block_size_tokens,
        block_size_tokens=block_size_tokens,
        block_bytes=arena.block_bytes,
        dtype="bytes",
        layout="bytes",
        model_revision="profile",
    )
