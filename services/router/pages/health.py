"""Pages for probes and monitoring: none needs a key."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import brigade
from brigade.core.answer import Owner
from brigade.core.errors import Unavailable
from services.router.json_http import json_response
from services.router.metrics import RouterMetrics

_RETRY_AFTER_S = 1.0


class HealthPages:
    """Liveness says that the process answers; readiness that a request would be served now."""

    def __init__(self, *, owner: Owner, metrics: RouterMetrics) -> None:
        self._owner = owner
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.ready),
            web.get("/ready", self.ready),
            web.get("/live", self.live),
            web.get("/ping", self.live),
            web.get("/version", self.version),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, request: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    async def ready(self, request: web.Request) -> web.Response:
        why_not = self._owner.is_ready()
        if why_not is not None:
            raise Unavailable(why_not, retry_after_s=_RETRY_AFTER_S)
        return json_response({"status": "ready"})

    async def version(self, request: web.Request) -> web.Response:
        return json_response({"version": brigade.__version__})

    async def metrics(self, request: web.Request) -> web.Response:
        page = generate_latest(self._metrics.registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})
