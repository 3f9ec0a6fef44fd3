"""Workers that die: what they held waits until their heartbeat has gone, then its owners start the next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brigade.core.request import RequestState
from brigade.core.timeline import NS_PER_S
from brigade.sim.kinds import Kind
from brigade.sim.request import SimRequest
from brigade.sim.scenario import FailureSpec
from brigade.sim.worker import SimWorker, WorkerState

if TYPE_CHECKING:
    from brigade.sim.simulator import Simulator


class Faults:
    """What has been lent by a dead worker can still be copied: its memory outlives its process, as live on one host."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._lost: dict[int, list[SimRequest]] = {}

    def schedule(self, failures: Sequence[FailureSpec]) -> None:
        for number, failure in enumerate(failures):
            worker = self._sim.by_id[failure.worker_id]
            self._sim.at(round(failure.at_s * NS_PER_S), Kind.KILL, worker.index, failure, number)

    def kill(self, what: object, version: int) -> None:
        """The process ends in the middle of whatever it did. Tokens of steps that have ended are out."""
        failure = what
        assert isinstance(failure, FailureSpec)
        sim = self._sim
        worker = sim.by_id[failure.worker_id]
        if not worker.is_alive:
            return
        num_before = worker.num_steps_before(sim.now_ns)
        sim.result.num_steps += num_before
        num_steps = worker.num_steps + num_before
        for finish_step, _, request in worker.batch:
            request.num_out = request.osl - (finish_step - num_steps)
        lost = [*worker.claimed, *worker.active, *worker.unplaced, *worker.arriving.values(), *worker.joining]
        lost += [request for _, _, request in worker.batch] + list(worker.waiting)
        for request in lost:
            if request.lender is worker:
                request.loan = None  # its blocks went with the pool
            request.room = None
        self._lost[worker.index] = lost
        worker.state = WorkerState.DEAD
        worker.reset(sim.prefix_block_tokens)
        sim.update_prefillers()
        interval_ns = round(sim.scenario.heartbeat_interval_s * NS_PER_S)
        started_ns = round(worker.spec.start_s * NS_PER_S)
        first_ns = started_ns + interval_ns * (worker.index + 1) // len(sim.workers)
        last_beat_ns = max(started_ns, first_ns + (sim.now_ns - first_ns) // interval_ns * interval_ns)
        gone_ns = last_beat_ns + round(sim.scenario.heartbeat_ttl_s * NS_PER_S)
        sim.at(max(gone_ns, sim.now_ns), Kind.DETECT, worker.index, worker)
        if failure.back_after_s is not None:
            back_ns = max(gone_ns + 1, sim.now_ns + round(failure.back_after_s * NS_PER_S))
            sim.at(back_ns, Kind.START, worker.index, worker)

    def detect(self, what: object, version: int) -> None:
        """Its heartbeat has gone: every request that its records give to it gets a new attempt."""
        worker = what
        assert isinstance(worker, SimWorker)
        sim = self._sim
        sim.registry.expire(worker)
        worker.epoch += 1  # if it comes back, it is another life
        late = [request for request in sim.handing.on_the_way() if request.holder is worker]
        lost = self._lost.pop(worker.index) + list(worker.waiting) + late
        worker.waiting.clear()
        sim.update_prefillers()
        for request in sorted(lost, key=lambda request: request.index):
            self.next_attempt(request)

    def next_attempt(self, request: SimRequest) -> None:
        """Its owner freezes what was accepted and queues it again, or gives up."""
        sim = self._sim
        sim.handing.forget(request)
        sim.handing.end_loan(request)
        request.room, request.lender, request.num_left = None, None, 0
        if request.num_out == request.osl:
            sim.end(request, RequestState.FINISHED)
        elif request.attempt >= sim.scenario.max_attempts:
            sim.end(request, RequestState.FAILED)
        else:
            request.move(RequestState.QUEUED)
            request.attempt += 1
            request.holder = None
            sim.put(request)

    def held_by(self, worker: SimWorker) -> list[SimRequest]:
        """Return what a dead worker held and nobody has noticed yet."""
        return self._lost.get(worker.index, [])
