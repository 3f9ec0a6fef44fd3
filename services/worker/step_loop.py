"""Drives the engine: one step after the other, on its own thread, never waiting for Redis in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from brigade.core.step import Engine
from brigade.runtime.bell import Bell
from services.decode.batch import DecodeBatch
from services.prefill.batch import PrefillBatch


class StepLoop:
    """Every running decode takes part in every step; prefill chunks fill what is left of `max_batch_tokens`."""

    def __init__(
        self,
        engine: Engine,
        engine_thread: Executor,
        decode: DecodeBatch,
        prefill: PrefillBatch,
        *,
        max_batch_tokens: int,
        bell: Bell,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_idle` is told when there is nothing to compute."""
        self._engine = engine
        self._engine_thread = engine_thread
        self._decode = decode
        self._prefill = prefill
        self._max_batch_tokens = max_batch_tokens
        self._bell = bell
        self._on_idle = on_idle
        self.num_steps = 0

    async def run(self) -> None:
        """Step until cancelled; wait while there is nothing to compute. What the engine raises ends the worker."""
        loop = asyncio.get_running_loop()
        while True:
            seen = self._bell.num_rings
            decodes = self._decode.collect()
            prefills = self._prefill.collect(self._max_batch_tokens - len(decodes))
            if not decodes and not prefills:
                self._on_idle()
                await self._bell.wait(after=seen)
                continue
            results = await loop.run_in_executor(self._engine_thread, self._engine.step, decodes + prefills)
            self.num_steps += 1
            self._decode.take(results[: len(decodes)])
            self._prefill.take(results[len(decodes) :])
