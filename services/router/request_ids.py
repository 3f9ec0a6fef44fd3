"""Ids of HTTP requests: the client's own where it is usable, and the id of the work done for it."""

from __future__ import annotations

import re
import secrets

HEADER = "X-Request-Id"
_USABLE = re.compile(r"[A-Za-z0-9._:=@+-]{1,128}\Z")


def choose_request_id(given: str | None) -> str:
    """Return the client's x-request-id where it is short and plain, else a new one."""
    return given if given is not None and _USABLE.match(given) else secrets.token_hex(16)


def reply_id(prefix: str, request_id: str) -> str:
    """Return the id of a reply and of the requests behind it.

    It holds the client's id, to be found in logs, and chance, because clients use an id again when they retry.
    """
    return f"{prefix}-{request_id}-{secrets.token_hex(4)}"
