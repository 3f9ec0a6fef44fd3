"""The pages of a service that has no HTTP surface of its own: /live, /ready and /metrics on an optional port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Readiness = Callable[[], str | None]
"""Returns None when the service can do its work now, else the reason why not, as a short sentence."""


def add_pages(app: web.Application, *, ready: Readiness, registry: CollectorRegistry) -> None:
    """Add the three pages to `app`. /live answers as long as the event loop turns."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def is_ready(_: web.Request) -> web.Response:
        reason = ready()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "reason": reason}, status=503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/live", live)
    app.router.add_get("/ready", is_ready)
    app.router.add_get("/metrics", metrics)


@asynccontextmanager
async def serve_pages(
    host: str, port: int, *, ready: Readiness, registry: CollectorRegistry
) -> AsyncIterator[web.AppRunner | None]:
    """Serve the pages on host:port while the block runs; port 0 serves nothing and yields None.

    Raises OSError when the address cannot be had.
    """
    if port == 0:
        yield None
        return
    app = web.Application()
    add_pages(app, ready=ready, registry=registry)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner
    finally:
        await runner.cleanup()
