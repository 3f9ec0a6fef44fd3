"""A worker process as services.worker's, but with a timed engine: real, or emulated and paced.

    python -m benchmarks.timed_worker --model DIR --role prefill ... (the flags of services.worker)

BENCH_NOTES names the file for the notes of all steps, written when the worker has drained. BENCH_ENGINE is `real` or
`emulated`; BENCH_STEP_MS is how long each step lasts at least.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.timed_engine import TimedEngine
from brigade.bus.client import Bus
from brigade.core.config import InstallationConfig, TimingConfig, WorkerConfig
from brigade.core.step import Engine
from brigade.engine.emulated import EMULATED_LAYOUT, EmulatedEngine, emulated_block_bytes, emulated_model
from brigade.engine.folder import block_bytes, model_info
from brigade.kv.arena import Arena
from brigade.runtime.service import Stop, run_service
from brigade.runtime.service_args import parse_service_args
from services.worker.host import WorkerHost, new_worker_id, worker_name
from services.worker.loading import LAYOUT
from services.worker.machine import Machine, make_machine, new_threads


async def serve(stop: Stop, installation: InstallationConfig, timing: TimingConfig, config: WorkerConfig) -> None:
    """Serve as services.worker.main does, then save the notes."""
    bus = Bus(installation.redis_url, installation.name, block_ms=timing.block_ms)
    await bus.open()
    name = worker_name(config)
    machine, engine = _make(config, installation.name, new_worker_id(name[:48]))
    try:
        host = WorkerHost(bus, machine, installation=installation, config=config, timing=timing, name=name)
        await host.run(stop)
    finally:
        machine.close()
        await bus.close()
        engine.save(Path(os.environ["BENCH_NOTES"]))


def _make(config: WorkerConfig, installation: str, worker_id: str) -> tuple[Machine, TimedEngine]:
    threads = new_threads()
    is_emulated = os.environ["BENCH_ENGINE"] == "emulated"
    info = model_info(config.model, config.dtype)
    size = config.block_size_tokens
    bytes_per_block = emulated_block_bytes(size) if is_emulated else block_bytes(info, size)
    arena = Arena(
        directory=config.kv_dir,
        installation=installation,
        worker_id=worker_id,
        num_blocks=config.num_blocks,
        block_bytes=bytes_per_block,
    )

    def load() -> Engine:
        if is_emulated:
            pretended = emulated_model(
                name=info.name, vocab_size=info.vocab_size, max_model_len_tokens=info.max_model_len_tokens
            )
            pretended = replace(pretended, eos_token_ids=info.eos_token_ids)
            return EmulatedEngine(
                num_blocks=config.num_blocks, block_size_tokens=size, pool=arena.data, model=pretended
            )
        from brigade.engine.load import load_engine

        return load_engine(
            config.model,
            dtype=config.dtype,
            device="cpu",
            num_blocks=config.num_blocks,
            block_size_tokens=size,
            pool=arena.data,
            num_threads=config.num_threads,
        )

    engine = TimedEngine(threads[0].submit(load).result(), step_s=float(os.environ.get("BENCH_STEP_MS", "0")) / 1e3)
    layout = EMULATED_LAYOUT if is_emulated else LAYOUT
    return make_machine(engine, arena=arena, is_staging=False, layout=layout, threads=threads), engine


def main() -> int:
    installation, timing, config = parse_service_args("timed_worker", InstallationConfig, TimingConfig, WorkerConfig)
    return run_service(
        "worker", lambda stop: serve(stop, installation, timing, config), installation=installation, timing=timing
    )


if __name__ == "__main__":
    sys.exit(main())
