"""Waiting for a condition instead of sleeping for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_EVERY_S = 0.005


async def wait_until(condition: Callable[[], T | Awaitable[T]], deadline_s: float = 5.0, what: str = "") -> T:
    """Return the condition's first true value. `condition` may be a coroutine function; AssertionError at the deadline."""
    value: T | None = None
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = condition()
                value = await answer if inspect.isawaitable(answer) else answer
                if value:
                    return value
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        name = what or getattr(condition, "__name__", "the condition")
        raise AssertionError(f"{name} did not hold within {deadline_s:g} s (last value: {value!r})") from None
