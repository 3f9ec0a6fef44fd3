"""One router process: the owner of requests on the bus, and the HTTP surface in front of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from brigade.bus.client import Bus
from brigade.core.config import InstallationConfig, RouterServiceConfig, TimingConfig
from brigade.runtime.lag import LagMetrics, watch_lag
from brigade.runtime.service import Stop
from services.router.admin_views import RedisAdmin
from services.router.app import build_app, build_runner
from services.router.config import RouterConfig
from services.router.metrics import RouterMetrics
from services.router.model_folder import read_served_model
from services.router.owning.owner import RequestOwner
from services.router.text.tokenizer import ModelTokenizer

log = structlog.get_logger()


async def serve(
    stop: Stop, installation: InstallationConfig, timing: TimingConfig, config: RouterServiceConfig
) -> None:
    """Serve until told to stop; answers under way are finished first.

    Raises BrigadeError when the model folder or Redis cannot be used, OSError when the address cannot be had.
    """
    bus = Bus(installation.redis_url, installation.name, block_ms=timing.block_ms)
    owner = RequestOwner(bus, timing)
    limits = RouterConfig(
        api_key=config.api_key, admin_key=config.admin_key, served_model_name=config.served_model_name
    )
    folder = Path(config.model)
    model = read_served_model(
        folder, name=config.served_model_name, pool_limit_tokens=owner.max_request_tokens, created_s=int(time.time())
    )
    metrics = RouterMetrics(CollectorRegistry(), model_name=model.name, now_s=time.monotonic)
    metrics.set_load(running=lambda: owner.num_running, waiting=lambda: owner.num_waiting)
    app = build_app(
        owner=owner,
        tokenizer=ModelTokenizer.from_folder(folder, encode_inline_chars=limits.encode_inline_chars),
        model=model,
        config=limits,
        admin=RedisAdmin(bus),
        metrics=metrics,
    )
    runner = build_runner(app, limits, shutdown_timeout_s=stop.drain_deadline_s)
    try:
        await bus.open()
        await runner.setup()
        await web.TCPSite(runner, config.host, config.port, reuse_address=True).start()
        log.info("listens", host=config.host, port=config.port, model=model.name, router_id=owner.router_id)
        with watch_lag() as lag:
            metrics.registry.register(LagMetrics(lag))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(owner.run(stop.draining))
                await stop.draining.wait()
                await runner.cleanup()
    finally:
        await runner.cleanup()
        await bus.close()
