"""Which worker decodes a request whose prefill has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from brigade.core.messages import WorkerStatus, WorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What this worker has handed to one target since the target's status was read."""

    num_requests: int = 0
    num_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementView:
    """The registry as one prefilling worker sees it, and the request to place.

    `num_total_tokens` is prompt and longest answer. `refused` are targets that have just said no.
    """

    workers: tuple[WorkerView, ...]
    self_id: str
    model_revision: str
    num_total_tokens: int
    handed: Mapping[str, Handed] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The target and its epoch, or no target; with the reason."""

    worker_id: str | None
    epoch: int
    reason: str


def choose_decode_worker(view: PlacementView) -> Placement:
    """Choose this worker itself if it decodes; else one with room now, the least busy of them; else the least busy.

    A worker without room now is a fair choice: the request waits in its stream while others finish.
    """
    candidates = [worker for worker in view.workers if can_decode(worker, view)]
    if not candidates:
        return Placement(worker_id=None, epoch=0, reason="no living worker decodes this model and can hold the request")
    for worker in candidates:
        if worker.worker_id == view.self_id:
            return Placement(worker_id=worker.worker_id, epoch=worker.epoch, reason="the KV is here")
    best = min(candidates, key=lambda worker: _cost(worker, view))
    lacks_room = _cost(best, view)[0]
    reason = "least busy, all are full" if lacks_room else "least busy with room"
    return Placement(worker_id=best.worker_id, epoch=best.epoch, reason=reason)


def can_decode(worker: WorkerView, view: PlacementView) -> bool:
    """Whether a worker may be handed the request at all."""
    status = worker.status
    if status is None or worker.role is None or not worker.role.decodes or not worker.accepting:
        return False
    if worker.worker_id in view.refused or status.model_revision != view.model_revision:
        return False
    return _num_blocks(status, view) <= status.num_blocks


def _cost(worker: WorkerView, view: PlacementView) -> tuple[bool, int, int, str]:
    """Compare candidates: room first, then requests, then blocks in use; the id decides a tie."""
    status = worker.status
    assert status is not None, "only living workers are candidates"
    handed = view.handed.get(worker.worker_id, Handed())
    available = status.num_free_blocks - status.num_reserved_blocks - handed.num_blocks
    num_requests = status.num_waiting_decode + status.num_decoding + handed.num_requests
    lacks_room = _num_blocks(status, view) > available or num_requests >= status.max_num_seqs
    return lacks_room, num_requests, -available, worker.worker_id


def _num_blocks(status: WorkerStatus, view: PlacementView) -> int:
    return -(-view.num_total_tokens // status.block_size_tokens)


PlacementPolicy = Callable[[PlacementView], Placement]

PLACEMENT_POLICIES: Mapping[str, PlacementPolicy] = MappingProxyType({"least-busy": choose_decode_worker})
"""All placement policies by name."""
