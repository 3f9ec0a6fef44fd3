"""Errors as clients see them: HTTP status, OpenAI's nested body, and when to come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from brigade.core.errors import BrigadeError, InvalidRequest, Overloaded, Unavailable
from services.router.contracts import RoleRefused, UnknownWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """One error, translated. `code` is machine-readable, `param` the field at fault."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Return Retry-After in whole seconds, at least one, where coming back can help."""
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def error_reply(error: BrigadeError) -> ErrorReply:
    """Translate an error of ours. What is not the client's to know is named by its class only."""
    message = str(error)
    match error:
        case InvalidRequest():
            return ErrorReply(
                status=error.status,
                message=message,
                kind="authentication_error" if error.status in (401, 403) else "invalid_request_error",
                param=error.field,
                code=error.code or "invalid_request",
            )
        case Overloaded():
            return ErrorReply(
                status=429,
                message=message,
                kind="overloaded_error",
                code="overloaded",
                retry_after_s=error.retry_after_s,
            )
        case Unavailable():
            return ErrorReply(
                status=503,
                message=message,
                kind="service_unavailable",
                code="unavailable",
                retry_after_s=error.retry_after_s,
            )
        case UnknownWorker():
            return ErrorReply(status=404, message=message, kind="invalid_request_error", code="worker_not_found")
        case RoleRefused():
            return ErrorReply(status=409, message=message, kind="invalid_request_error", code="role_refused")
        case _ if error.retryable:
            return ErrorReply(
                status=503, message=message, kind="service_unavailable", code="unavailable", retry_after_s=1.0
            )
        case _:
            return ErrorReply(status=500, message=message, kind="server_error", code="internal_error")


def http_error_reply(error: web.HTTPException) -> ErrorReply:
    """Translate an error of the HTTP layer: no such route, wrong method, body too large."""
    return ErrorReply(
        status=error.status,
        message=f"{error.status} {error.reason}",
        kind="invalid_request_error" if error.status < 500 else "server_error",
        code={404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status, "http_error"),
    )


INTERNAL_ERROR = ErrorReply(
    status=500, message="the server failed to answer this request", kind="server_error", code="internal_error"
)
