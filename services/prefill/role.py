"""The prefill role as the worker host sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream
from brigade.bus.prefill_queue import PrefillQueue
from brigade.core.messages import AttemptKey
from brigade.kv.pool import KVPool
from brigade.policies.batching import BATCHING_POLICIES
from brigade.policies.placement import PLACEMENT_POLICIES
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.prefill.batch import PrefillBatch
from services.prefill.claiming import Claiming
from services.prefill.handing import HandOver
from services.prefill.refusing import Refusing
from services.prefill.targets import Targets


class PrefillRole:
    """Claims, computes and hands over. `bell` is rung whenever something here ended, and wakes this role when others ring it;
    `step_bell` wakes the step loop. `is_saturated` says that requests wait here to be decoded."""

    def __init__(
        self,
        bus: Bus,
        pool: KVPool,
        *,
        worker_id: str,
        record_ttl_s: float,
        max_batch_tokens: int,
        bell: Bell,
        step_bell: Bell,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        is_saturated: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._bell = bell
        self._queue = PrefillQueue(bus, worker_id, record_ttl_s=record_ttl_s)
        self.targets = Targets(
            bus,
            self_id=worker_id,
            model_revision=pool.engine.model.revision,
            policy=PLACEMENT_POLICIES["least-busy"],
        )
        refusing = Refusing(bus, DecodeStream(bus, worker_id, record_ttl_s=record_ttl_s))
        self.handing = HandOver(self._queue, pool, self.targets, refusing, worker_id=worker_id, bell=bell, spawn=spawn)
        self.batch = PrefillBatch(pool, on_prefilled=self.handing.begin, on_scheduled=bell.ring)
        self.claiming = Claiming(
            bus,
            self._queue,
            pool,
            self.batch,
            self.handing,
            self.targets,
            refusing,
            policy=BATCHING_POLICIES["class-priority-arrival"],
            max_batch_tokens=max_batch_tokens,
            bell=bell,
            step_bell=step_bell,
            is_saturated=is_saturated,
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is claimed, computed or being handed over. Loans may be open: they survive a change of role."""
        return not self.batch.num_sequences and not self.handing.num_open and not self.claiming.is_claiming

    def keys(self) -> list[AttemptKey]:
        """All attempts that this role works on."""
        return self.batch.keys()

    def open(self, *, decodes_too: bool) -> None:
        """Start claiming; `decodes_too` keeps room for the answers as well."""
        self.batch.reserves_answers = decodes_too
        self.claiming.is_open = True
        self.handing.is_leaving = False
        self._bell.ring()

    def close(self) -> None:
        """Claim nothing more; what is claimed is computed and handed over."""
        self.claiming.is_open = False

    def drain(self) -> None:
        """The role ends: as `close`, and what finds no target is given back."""
        self.close()
        self.handing.is_leaving = True
        self._bell.ring()

    def drop(self, keys: Collection[AttemptKey]) -> None:
        """Forget attempts that have ended by their records."""
        self.batch.drop(keys)

    async def run(self) -> None:
        await self.claiming.run()

    async def watch_queue(self) -> None:
        await self.claiming.watch()

    async def leave(self) -> None:
        """The process ends: give back what has not begun, and what finds no target."""
        self.drain()
        unstarted = [claimed.waiting for claimed in self.batch.take_unstarted()]
        await until_answered(self._queue.give_back, unstarted)
        self._bell.ring()

    async def give_back_all(self) -> None:
        """The deadline is near: give back whatever is still claimed; nothing of it may be stepped any more."""
        await self._queue.give_back([claimed.waiting for claimed in self.batch.take_all()])

    def clear(self) -> None:
        """Give up all blocks. Only when no step is running."""
        self.batch.clear()
