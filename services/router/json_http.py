"""JSON bodies in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from brigade.core.errors import InvalidRequest
from services.router.error_body import ErrorReply


def json_response(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, headers=headers, content_type="application/json")


def error_response(error: ErrorReply) -> web.Response:
    return json_response(error.body, status=error.status, headers=error.headers)


async def read_json(request: web.Request, *, timeout_s: float) -> Any:
    """Return the JSON value in a request's body.

    Raises InvalidRequest for another content type, a body that does not come in time, or anything but one JSON value
    (NaN, infinities and invalid UTF-8 included). The application's limit on the size raises 413.
    """
    if request.content_type != "application/json":
        raise InvalidRequest(
            "the body must be JSON and say so: Content-Type: application/json",
            code="unsupported_media_type",
            status=415,
        )
    try:
        async with asyncio.timeout(timeout_s):
            data = await request.read()
    except TimeoutError as error:
        raise InvalidRequest(f"the body did not arrive within {timeout_s:g} s", code="timeout", status=408) from error
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from error
