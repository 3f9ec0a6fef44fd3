"""Starts a worker process: settings, Redis, model, registration; the same for every role at start."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry

from brigade.bus.client import Bus
from brigade.core.config import InstallationConfig, TimingConfig, WorkerConfig
from brigade.core.messages import Role
from brigade.runtime.lag import LoopLag, watch_lag
from brigade.runtime.pages import serve_pages
from brigade.runtime.service import Stop, run_service
from brigade.runtime.service_args import parse_service_args
from services.worker.host import WorkerHost, new_worker_id, worker_name
from services.worker.loading import load_machine
from services.worker.metrics import WorkerMetrics


def main(prog: str, *, role: Role | None = None, argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; `role` fixes the role at start. Returns the exit status."""
    fixed = {"role": role.value} if role is not None else None
    installation, timing, config = parse_service_args(
        prog, InstallationConfig, TimingConfig, WorkerConfig, argv=argv, fixed=fixed
    )

    async def serve(stop: Stop) -> None:
        with watch_lag() as lag:
            await run_worker(stop, installation=installation, timing=timing, config=config, lag=lag)

    return run_service(prog.rpartition(".")[2], serve, installation=installation, timing=timing)


async def run_worker(
    stop: Stop, *, installation: InstallationConfig, timing: TimingConfig, config: WorkerConfig, lag: LoopLag
) -> None:
    """Serve as a worker until `stop` drains. Raises BusError, ModelError or ConfigError when it cannot start."""
    bus = Bus(installation.redis_url, installation.name, block_ms=timing.block_ms)
    try:
        await bus.open()
        name = worker_name(config)
        machine = await load_machine(config, installation=installation.name, worker_id=new_worker_id(name[:48]))
        machine = replace(machine, lag=lag)
        # What torch has made stays: no later collection, nor the one at exit, has to walk through it again.
        gc.freeze()
        try:
            host = WorkerHost(bus, machine, installation=installation, config=config, timing=timing, name=name)
            registry = CollectorRegistry()
            registry.register(WorkerMetrics(host))
            async with serve_pages(config.health_host, config.health_port, ready=host.ready, registry=registry):
                await host.run(stop)
        finally:
            machine.close()
    finally:
        await bus.close()
