"""Waking tasks of one event loop, and calls that are made until Redis answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import structlog

from brigade.core.errors import BusError

P = ParamSpec("P")
T = TypeVar("T")

_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.05, 1.0


class Bell:
    """Wakes all that wait when it rings.

    A ring between looking and waiting is not missed: take `num_rings` before you look and wait for one after it.
    """

    def __init__(self) -> None:
        self.num_rings = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self.num_rings += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, *, after: int) -> None:
        """Return when it has rung more than `after` times."""
        while self.num_rings <= after:
            await self._rung.wait()


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
