"""Waking tasks of one event loop."""

from __future__ import annotations

import asyncio


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
