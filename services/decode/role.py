"""The decode role as the worker host sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream
from brigade.core.messages import AttemptKey
from brigade.kv.pool import KVPool
from brigade.runtime.bell import Bell
from services.decode.batch import DecodeBatch
from services.decode.intake import Intake
from services.decode.outbox import Outbox

UNSENT_STEPS = 64
"""Steps that may run ahead of Redis."""


class DecodeRole:
    """Reads its stream whatever the worker's role is: what the record gives to this worker is never left lying."""

    def __init__(
        self,
        bus: Bus,
        pool: KVPool,
        *,
        worker_id: str,
        record_ttl_s: float,
        max_num_seqs: int,
        bell: Bell,
        step_bell: Bell,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        stream = DecodeStream(bus, worker_id, record_ttl_s=record_ttl_s)
        self.outbox = Outbox(stream, max_tokens=UNSENT_STEPS * max_num_seqs, bell=bell, step_bell=step_bell)
        self.batch = DecodeBatch(pool, self.outbox)
        self.intake = Intake(
            bus,
            stream,
            pool,
            self.batch,
            worker_id=worker_id,
            max_num_seqs=max_num_seqs,
            bell=bell,
            step_bell=step_bell,
            spawn=spawn,
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, arrives, runs or is still to be sent."""
        return not self.intake.num_waiting and not self.batch.num_sequences and self.outbox.is_empty

    def keys(self) -> list[AttemptKey]:
        """All attempts that this role works on."""
        return self.intake.keys() + self.batch.keys()

    def drop(self, keys: Collection[AttemptKey]) -> None:
        """Forget attempts that have ended by their records."""
        self.intake.drop(keys)

    def clear(self) -> None:
        """Give up all blocks. Only when no copy and no step is running."""
        self.intake.clear()
        self.batch.clear()
