"""Where a prefilled request may go: the registry as last read, and what was handed out since."""

from __future__ import annotations

import structlog

from brigade.bus.client import Bus
from brigade.bus.registry import list_workers
from brigade.core.errors import BusError
from brigade.core.messages import WorkerView
from brigade.policies.placement import Handed, Placement, PlacementPolicy, PlacementView, can_decode


class Targets:
    """Asks the placement policy. `refresh` is called with each heartbeat and whenever a target has refused."""

    def __init__(self, bus: Bus, *, self_id: str, model_revision: str, policy: PlacementPolicy) -> None:
        self._bus = bus
        self._self_id = self_id
        self._model_revision = model_revision
        self._policy = policy
        self._workers: tuple[WorkerView, ...] = ()
        self._handed: dict[str, Handed] = {}
        self._refused: set[str] = set()

    async def refresh(self) -> None:
        """Read the registry again. While Redis is away the last view stands: the hand-over script checks the target."""
        try:
            self._workers = tuple(await list_workers(self._bus))
        except BusError as error:
            structlog.get_logger().warning("registry_not_read", error=str(error))
            return
        self._handed.clear()
        self._refused.clear()

    def place(self, num_total_tokens: int) -> Placement:
        return self._policy(self._view(num_total_tokens))

    def has_any(self) -> bool:
        """Whether some worker decodes this model at all."""
        view = self._view(1)
        return any(can_decode(worker, view) for worker in self._workers)

    def is_too_large(self, num_total_tokens: int) -> bool:
        """Whether some worker decodes this model, and none of them could ever hold so many tokens."""
        decoding = [
            worker.status.num_blocks * worker.status.block_size_tokens
            for worker in self._workers
            if worker.status is not None
            and worker.role is not None
            and worker.role.decodes
            and worker.status.model_revision == self._model_revision
        ]
        return bool(decoding) and num_total_tokens > max(decoding)

    def max_prefill_pool_tokens(self) -> int:
        """Return the size of the largest pool of living workers that prefill."""
        sizes = [
            worker.status.num_blocks * worker.status.block_size_tokens
            for worker in self._workers
            if worker.status is not None and worker.role is not None and worker.role.prefills
        ]
        return max(sizes, default=0)

    def num_prefilling_workers(self) -> int:
        """Return how many living workers prefill, this one among them."""
        return sum(w.status is not None and w.role is not None and w.role.prefills for w in self._workers)

    def note_handed(self, worker_id: str, num_blocks: int) -> None:
        before = self._handed.get(worker_id, Handed())
        self._handed[worker_id] = Handed(
            num_requests=before.num_requests + 1, num_blocks=before.num_blocks + num_blocks
        )

    async def note_refused(self, worker_id: str) -> None:
        """The registry has changed under us: read it again, and pass over the one that refused if it still looks fine."""
        await self.refresh()
        self._refused.add(worker_id)

    def _view(self, num_total_tokens: int) -> PlacementView:
        return PlacementView(
            workers=self._workers,
            self_id=self._self_id,
            model_revision=self._model_revision,
            num_total_tokens=num_total_tokens,
            handed=self._handed,
            refused=frozenset(self._refused),
        )
