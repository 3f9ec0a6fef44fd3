"""Changes of role: wishes decided by the live policy, carried out as live: drain, then switch under a higher epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from brigade.core.messages import RoleIntent
from brigade.core.timeline import NS_PER_S
from brigade.policies.role_intents import Verdict, decide_intent
from brigade.sim.kinds import Kind
from brigade.sim.result import FlipRecord
from brigade.sim.scenario import FlipSpec
from brigade.sim.worker import SimWorker, WorkerState

if TYPE_CHECKING:
    from brigade.sim.simulator import Simulator


class Flips:
    """Decides and carries out wishes; every one leaves a record in the result."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._highest_epoch = 0
        self._open: dict[int, int] = {}  # worker → place of its record

    def schedule(self, flips: Sequence[FlipSpec]) -> None:
        for number, flip in enumerate(flips):
            self._sim.at(round(flip.at_s * NS_PER_S), Kind.FLIP, number, flip)

    def decide(self, what: object) -> None:
        """Let the policy decide one wish on the registry as it is now."""
        flip = what
        assert isinstance(flip, FlipSpec)
        sim = self._sim
        views = sim.registry.snapshot()
        decision = decide_intent(views, RoleIntent(worker_id=flip.worker_id, role=flip.role))
        worker = sim.by_id[flip.worker_id]
        record = FlipRecord(
            worker_id=flip.worker_id,
            role=flip.role.value,
            decided_ns=sim.now_ns,
            switched_ns=None,
            reason=decision.reason,
        )
        sim.result.flips.append(record)
        if decision.verdict is not Verdict.ACCEPTED or not worker.is_alive:
            return
        self._highest_epoch = max(self._highest_epoch, *(max(view.epoch, view.desired_epoch) for view in views)) + 1
        self._open[worker.index] = len(sim.result.flips) - 1
        worker.desired_role = flip.role
        worker.state = WorkerState.DRAINING
        sim.registry.change(worker, self._highest_epoch)
        sim.update_prefillers()
        sim.wake(worker)

    def switch_if_idle(self, worker: SimWorker) -> None:
        """A draining worker with nothing left takes its new role and serves again."""
        if worker.state is not WorkerState.DRAINING or not worker.is_idle or worker.is_stepping:
            return
        sim = self._sim
        view = sim.registry.get(worker.worker_id)
        assert view is not None
        assert worker.desired_role is not None
        worker.role, worker.epoch = worker.desired_role, view.desired_epoch
        worker.desired_role = None
        worker.state = WorkerState.SERVING
        sim.registry.change(worker)
        sim.update_prefillers()
        sim.refresh(worker)
        sim.wake(worker)
        place = self._open.pop(worker.index)
        sim.result.flips[place] = replace(sim.result.flips[place], switched_ns=sim.now_ns)
