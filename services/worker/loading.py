"""From settings to a machine: how many blocks, which memory, which engine. The only place here that loads torch."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import structlog

from brigade.core.config import WorkerConfig
from brigade.core.errors import ConfigError
from brigade.core.step import ModelInfo
from brigade.engine.emulated_folder import emulated_model_info
from brigade.engine.emulated_gpu import BLOCK, EMULATED_GPU_LAYOUT, EmulatedGpu
from brigade.engine.pace import Pace
from brigade.kv import KVTransport, open_transport
from brigade.kv.arena import Arena, sweep
from brigade.kv.paced import PacedTransport
from brigade.policies.profile import load_profile
from services.worker.machine import Emulation, Machine, make_machine, new_threads

if TYPE_CHECKING:
    from brigade.engine.engine import TorchEngine

LAYOUT = "layer, key|value, head, slot, dimension"
"""Order of the bytes inside a block, as `brigade.engine` lays them out."""

STAGING_SHARE = 4
"""A pool in device memory lends through host memory of a quarter of its size."""


async def load_machine(config: WorkerConfig, *, installation: str, worker_id: str) -> Machine:
    """Load model and pool on the engine's thread. Raises ModelError, ConfigError."""
    threads = new_threads()
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads[0], _load, config, installation, worker_id, threads)
    except BaseException:
        for thread in threads:
            thread.shutdown(wait=False)
        raise


def _load(config: WorkerConfig, installation: str, worker_id: str, threads: tuple[Executor, Executor]) -> Machine:
    if config.emulate is not None:
        return _load_emulated(config, config.emulate, installation, worker_id, threads)
    from brigade.engine.load import block_bytes, model_info, resolve_device

    info = model_info(config.model, config.dtype)
    device = resolve_device(config.device)
    bytes_per_block = block_bytes(info, config.block_size_tokens)
    num_blocks = config.num_blocks or config.kv_memory_mb * 2**20 // bytes_per_block
    if num_blocks < 1:
        raise ConfigError(f"--kv-memory-mb {config.kv_memory_mb} holds no KV block: one has {bytes_per_block} bytes")
    is_staging = not device.startswith("cpu")
    num_arena_blocks = num_staging_blocks(info, num_blocks, config.block_size_tokens) if is_staging else num_blocks
    arena = _make_arena(config, installation, worker_id, num_arena_blocks, bytes_per_block)
    try:
        engine = _load_engine(config, device, num_blocks, None if is_staging else arena.data)
        return make_machine(engine, arena=arena, is_staging=is_staging, layout=LAYOUT, threads=threads)
    except BaseException:
        arena.close()
        raise


def _load_emulated(
    config: WorkerConfig, profile: str, installation: str, worker_id: str, threads: tuple[Executor, Executor]
) -> Machine:
    """Make a worker that pretends to be a profile: its times, its KV capacity, no weights and no torch."""
    costs = load_profile(profile)
    num_blocks = config.num_blocks or costs.kv_capacity_tokens // config.block_size_tokens
    if num_blocks < 1:
        raise ConfigError(f"--emulate {profile} has room for {costs.kv_capacity_tokens} tokens, less than one KV block")
    emulation = Emulation(profile=costs.name, time_scale=config.time_scale, pace=Pace(config.time_scale))
    transfers = Pace(config.time_scale)
    arena = _make_arena(config, installation, worker_id, num_blocks, BLOCK.size)
    try:
        engine = EmulatedGpu(
            model=emulated_model_info(config.model, costs.name),
            costs=costs,
            pace=emulation.pace,
            pool=arena.data,
            num_blocks=num_blocks,
            block_size_tokens=config.block_size_tokens,
            host_step_ns=costs.host_step_ns,
        )

        def open_paced(name: str) -> KVTransport:
            return PacedTransport(
                open_transport(name),
                now_ns=time.monotonic_ns,
                wait=lambda begun_ns, num_tokens: transfers.wait(begun_ns, costs.kv_transfer_ns(num_tokens)),
            )

        return make_machine(
            engine,
            arena=arena,
            is_staging=False,
            layout=EMULATED_GPU_LAYOUT,
            threads=threads,
            emulation=emulation,
            open_transport=open_paced,
        )
    except BaseException:
        arena.close()
        raise


def _make_arena(
    config: WorkerConfig, installation: str, worker_id: str, num_blocks: int, bytes_per_block: int
) -> Arena:
    """Make the file; if there is no room, remove what dead workers have left (it could still be pulled) and try again."""

    def make() -> Arena:
        return Arena(
            directory=config.kv_dir,
            installation=installation,
            worker_id=worker_id,
            num_blocks=num_blocks,
            block_bytes=bytes_per_block,
        )

    try:
        return make()
    except ConfigError:
        if not sweep(config.kv_dir, installation):
            raise
        return make()


def _load_engine(config: WorkerConfig, device: str, num_blocks: int, pool: memoryview | None) -> TorchEngine:
    from brigade.engine.load import load_engine

    engine = load_engine(
        config.model,
        dtype=config.dtype,
        device=device,
        num_blocks=num_blocks,
        block_size_tokens=config.block_size_tokens,
        pool=pool,
        num_threads=config.num_threads,
        linear=config.linear,
        attention=config.attention,
    )
    log = structlog.get_logger()
    log.info(
        "engine_loaded",
        model=engine.model.name,
        dtype=engine.model.dtype,
        device=device,
        num_blocks=num_blocks,
        linear=engine.linear_name,
        attention=engine.attention_name,
    )
    for note in engine.notes:
        log.warning("engine_note", note=note)
    return engine


def num_staging_blocks(info: ModelInfo, num_blocks: int, block_size_tokens: int) -> int:
    """Room for a share of the pool, and for the longest request in any case."""
    longest = -(-info.max_model_len_tokens // block_size_tokens)
    return min(num_blocks, max(longest, num_blocks // STAGING_SHARE))
