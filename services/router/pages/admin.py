"""The admin API: what stands in the queues, who works, what became of a request, and the wish for a role."""

from __future__ import annotations

from aiohttp import web

from brigade.core.errors import InvalidRequest
from services.router.contracts import AdminSource
from services.router.json_http import json_response, read_json
from services.router.openai.fields import Fields


class AdminPages:
    """Pages under /admin/, all from one source."""

    def __init__(self, source: AdminSource, *, body_timeout_s: float) -> None:
        self._source = source
        self._body_timeout_s = body_timeout_s

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/admin/queues", self.queues),
            web.get("/admin/workers", self.workers),
            web.get("/admin/requests/{request_id:.+}", self.request),
            web.post("/admin/workers/{worker_id}/role", self.set_role),
        ]

    async def queues(self, request: web.Request) -> web.Response:
        return json_response(await self._source.queues())

    async def workers(self, request: web.Request) -> web.Response:
        return json_response({"workers": list(await self._source.workers())})

    async def request(self, request: web.Request) -> web.Response:
        request_id = request.match_info["request_id"]
        found = await self._source.request(request_id)
        if found is None:
            raise InvalidRequest(f"nothing is known of request {request_id[:200]!r}", code="not_found", status=404)
        return json_response(found)

    async def set_role(self, request: web.Request) -> web.Response:
        """Wish a role: body {"role": "prefill" | "decode" | "mixed"}. The balancer carries it out, hence 202."""
        fields = Fields.of(await read_json(request, timeout_s=self._body_timeout_s))
        role = fields.take_str("role", max_chars=32)
        if role is None:
            raise fields.error("role", "is required", code="missing_required_parameter")
        fields.finish()
        return json_response(await self._source.set_role(request.match_info["worker_id"], role), status=202)
