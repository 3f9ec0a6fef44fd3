"""What a worker process has for life: engine, KV pool and the threads that work on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from brigade.core.step import Engine
from brigade.engine.pace import Pace
from brigade.kv import KVTransport, open_transport
from brigade.kv.arena import Arena, sweep
from brigade.kv.pool import KVPool
from brigade.kv.staging import StagingExporter
from brigade.runtime.lag import LoopLag

SWEEP_INTERVAL_S = 30.0
"""Time between two looks for arenas of dead workers. Long: what a killed worker has lent can be pulled until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    """What an emulated worker pretends to be: a profile, at `time_scale` times its durations."""

    profile: str
    time_scale: float
    pace: Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`engine_thread` has one thread: an engine is used from one thread only. `lag` is of the process's event loop."""

    engine: Engine
    pool: KVPool
    engine_thread: Executor
    copy_thread: Executor
    emulation: Emulation | None = None
    lag: LoopLag | None = None

    def on_idle(self) -> None:
        """There is nothing to compute."""
        if self.emulation is not None:
            self.emulation.pace.rest()

    def close(self) -> None:
        """End the threads, then let go of engine and pool. Call when nothing uses them any more."""
        self.engine_thread.shutdown()
        self.copy_thread.shutdown()
        self.engine.close()
        self.pool.close()


def new_threads() -> tuple[Executor, Executor]:
    """Make the engine's thread and the copying one."""
    return ThreadPoolExecutor(1, thread_name_prefix="engine"), ThreadPoolExecutor(1, thread_name_prefix="kv-copy")


def make_machine(
    engine: Engine,
    *,
    arena: Arena,
    is_staging: bool,
    layout: str,
    threads: tuple[Executor, Executor],
    emulation: Emulation | None = None,
    open_transport: Callable[[str], KVTransport] = open_transport,
) -> Machine:
    """Put a pool around an engine. `arena` is the engine's own memory, or a staging area if `is_staging`."""
    engine_thread, copy_thread = threads
    staging = StagingExporter(arena, block_size_tokens=engine.block_size_tokens) if is_staging else None
    pool = KVPool(
        engine,
        arena=arena,
        staging=staging,
        layout=layout,
        engine_thread=engine_thread,
        copy_thread=copy_thread,
        open_transport=open_transport,
    )
    return Machine(engine=engine, pool=pool, engine_thread=engine_thread, copy_thread=copy_thread, emulation=emulation)


async def sweep_dead_pools(machine: Machine, directory: str, installation: str) -> None:
    """Remove arenas that no living process holds, now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        swept = await loop.run_in_executor(machine.copy_thread, sweep, directory, installation)
        if swept:
            structlog.get_logger().info("dead_pools_removed", paths=swept)
