"""What happens to every HTTP request: its id, its errors translated, its keys checked, one log event and one count."""

from __future__ import annotations

import hmac
import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from brigade.core.errors import BrigadeError, InvalidRequest
from services.router.config import RouterConfig
from services.router.error_body import INTERNAL_ERROR, error_reply, http_error_reply
from services.router.json_http import error_response
from services.router.metrics import RouterMetrics
from services.router.request_ids import HEADER, choose_request_id

REQUEST_ID = web.RequestKey("request_id", str)
_GUARDED = ("/v1/", "/tokenize", "/detokenize")


async def add_request_id_header(request: web.Request, response: web.StreamResponse) -> None:
    """Send the request's id back (a signal handler, so that streams have it too)."""
    request_id = request.get(REQUEST_ID)
    if request_id is not None:
        response.headers[HEADER] = request_id


def observe_requests(metrics: RouterMetrics) -> Middleware:
    """Make the outermost middleware: gives the request its id, translates errors, logs and counts."""
    log = structlog.get_logger("router.http")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = choose_request_id(request.headers.get(HEADER))
        request[REQUEST_ID] = request_id
        began_s = time.perf_counter()
        status = 499  # the client left before there was an answer
        try:
            response = await _translate_errors(request, handler, log)
            status = response.status
            return response
        finally:
            resource = request.match_info.route.resource
            route = "unknown" if resource is None else resource.canonical
            metrics.on_response(route, status)
            log.debug(
                "http_request",
                request_id=request_id,
                method=request.method,
                route=route,
                status=status,
                duration_s=round(time.perf_counter() - began_s, 6),
            )

    return middleware


async def _translate_errors(
    request: web.Request, handler: Handler, log: structlog.stdlib.BoundLogger
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BrigadeError as error:
        return error_response(error_reply(error))
    except web.HTTPException as error:
        return error_response(http_error_reply(error))
    except ConnectionError:
        return web.Response(
            status=499
        )  # the client left while we wrote: nobody reads this, and nothing is wrong with us
    except Exception:
        # the edge: whatever is wrong with us is logged here, and the client hears that it was not its fault
        log.exception("http_request_failed", request_id=request[REQUEST_ID])
        return error_response(INTERNAL_ERROR)


def check_keys(config: RouterConfig) -> Middleware:
    """Make the middleware that asks for keys; both comparisons take the same time for any wrong key."""
    admin_key = config.admin_key or config.api_key

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/admin/"):
            _check(request, admin_key)
        elif request.path.startswith(_GUARDED):
            _check(request, config.api_key)
        return await handler(request)

    return middleware


def _check(request: web.Request, key: str | None) -> None:
    if key is None:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    given_bytes = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given_bytes, key.encode()):
        raise InvalidRequest("a valid key is needed: Authorization: Bearer KEY", code="invalid_api_key", status=401)
