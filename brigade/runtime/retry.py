"""Calls on the bus that are made until Redis answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import structlog

from brigade.core.errors import BusError

P = ParamSpec("P")
T = TypeVar("T")

_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.05, 1.0


async def until_answered(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call on the bus until it is answered: for calls that may be sent twice and must not be given up.

    Ends otherwise only by cancellation.
    """
    pause_s = _PAUSE_FIRST_S
    while True:
        try:
            return await call(*args, **kwargs)
        except BusError as error:
            structlog.get_logger().warning("bus_call_again", error=str(error))
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)
