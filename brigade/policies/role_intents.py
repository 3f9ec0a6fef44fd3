"""Whether an operator's wish for a role can be carried out now. Asked by the router, to answer, and by the leading balancer,
which alone writes the role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from brigade.core.messages import RoleIntent, WorkerView


class Verdict(Enum):
    ACCEPTED = auto()
    UNKNOWN = auto()
    """No such worker, or it is dead."""
    REFUSED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentDecision:
    verdict: Verdict
    reason: str


def decide_intent(workers: Sequence[WorkerView], intent: RoleIntent) -> IntentDecision:
    """Accept a wish for a living worker whose flip leaves a living worker to prefill and one to decode."""
    worker = next((w for w in workers if w.worker_id == intent.worker_id), None)
    if worker is None:
        return IntentDecision(verdict=Verdict.UNKNOWN, reason=f"no worker {intent.worker_id!r} is registered")
    if not worker.is_alive or worker.role is None:
        return IntentDecision(verdict=Verdict.UNKNOWN, reason=f"worker {intent.worker_id!r} has no heartbeat")
    if is_flipping(worker):
        wish = f"it is on its way to {worker.desired_role} (epoch {worker.desired_epoch})"
        return IntentDecision(verdict=Verdict.REFUSED, reason=f"worker {intent.worker_id!r} is flipping: {wish}")
    if worker.role is intent.role:
        return IntentDecision(
            verdict=Verdict.REFUSED, reason=f"worker {intent.worker_id!r} has role {intent.role} already"
        )
    if not worker.accepting:
        return IntentDecision(verdict=Verdict.REFUSED, reason=f"worker {intent.worker_id!r} is leaving")
    others = [w.role for w in workers if w.is_alive and w.accepting and w.role and w.worker_id != intent.worker_id]
    after = [*others, intent.role]
    for phase, has_it in (("prefill", any(r.prefills for r in after)), ("decode", any(r.decodes for r in after))):
        if not has_it:
            return IntentDecision(verdict=Verdict.REFUSED, reason=f"no worker would be left to {phase}")
    return IntentDecision(verdict=Verdict.ACCEPTED, reason=intent.reason or "asked for by an operator")


def is_flipping(worker: WorkerView) -> bool:
    """Whether a newer role is desired than the worker has."""
    return worker.desired_role is not None and worker.desired_epoch > worker.epoch
