"""The registry of workers: role, epoch and accepting as of now, everything else as of each worker's last heartbeat."""

from __future__ import annotations

from dataclasses import replace

from brigade.core.messages import WorkerStatus, WorkerView
from brigade.sim.worker import SimWorker, WorkerState

MODEL = "simulated"


class SimRegistry:
    """What `list_workers` would answer. A view is made anew only when something in it has changed."""

    def __init__(self) -> None:
        self._views: dict[str, WorkerView] = {}
        self._snapshot: tuple[WorkerView, ...] | None = None

    def snapshot(self) -> tuple[WorkerView, ...]:
        """Return all registered workers, sorted by id."""
        if self._snapshot is None:
            self._snapshot = tuple(self._views[worker_id] for worker_id in sorted(self._views))
        return self._snapshot

    def get(self, worker_id: str) -> WorkerView | None:
        return self._views.get(worker_id)

    def beat(self, worker: SimWorker) -> None:
        """Take the worker's status as it is now."""
        before = self._views.get(worker.worker_id)
        status = _status(worker)
        if before is not None and before.status == status:
            return
        self._put(worker, status)

    def change(self, worker: SimWorker, desired_epoch: int | None = None) -> None:
        """Role, epoch or accepting changed, by script: seen at once."""
        before = self._views[worker.worker_id]
        self._put(worker, before.status, before.desired_epoch if desired_epoch is None else desired_epoch)

    def expire(self, worker: SimWorker) -> None:
        """Its heartbeat has gone."""
        self._views[worker.worker_id] = replace(self._views[worker.worker_id], status=None)
        self._snapshot = None

    def takes(self, worker_id: str, epoch: int) -> bool:
        """Whether the hand-over script accepts a target: heartbeat, accepting, and the epoch that was seen."""
        view = self._views.get(worker_id)
        return view is not None and view.is_alive and view.accepting and view.epoch == epoch

    def _put(self, worker: SimWorker, status: WorkerStatus | None, desired_epoch: int = 0) -> None:
        self._views[worker.worker_id] = WorkerView(
            worker_id=worker.worker_id,
            role=worker.role,
            epoch=worker.epoch,
            # a dead worker accepts, by the registry, until its heartbeat has gone
            accepting=worker.state is not WorkerState.DRAINING,
            desired_role=worker.desired_role,
            desired_epoch=max(desired_epoch, worker.epoch),
            status=status,
        )
        self._snapshot = None


def _status(worker: SimWorker) -> WorkerStatus:
    ledger, pool = worker.pool.ledger, worker.pool
    counts = ledger.counts()
    return WorkerStatus(
        worker_id=worker.worker_id,
        host="simulated",
        pid=0,
        model=MODEL,
        model_revision=MODEL,
        num_blocks=worker.num_blocks,
        block_size_tokens=worker.block_size_tokens,
        num_free_blocks=counts.num_free + counts.num_cached,
        num_lent_blocks=pool.num_lent,
        num_reserved_blocks=counts.num_reserved,
        num_prefilling=len(worker.claimed) + len(worker.active) + len(worker.unplaced),
        num_prefill_tokens=worker.num_unstarted_tokens + sum(num_tokens for _, num_tokens in worker.in_step),
        num_waiting_decode=len(worker.waiting) + len(worker.arriving),
        num_decoding=worker.num_decoding,
        max_num_seqs=worker.max_num_seqs,
        started_s=0.0,
        sent_s=0.0,
    )
