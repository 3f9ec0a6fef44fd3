"""The simulator's clock: takes the next event, lets it act, and steps whoever it woke.

Events of one instant are taken in the order of `Kind`, then of the worker's or request's number, never of chance; when none is
left at that instant, the workers that were woken begin their next steps, in the order of their numbers. So nothing depends on the
order in which events were scheduled, and jumping over equal decode steps changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from brigade.core.request import RequestState
from brigade.core.timeline import NS_PER_S
from brigade.policies.batching import BATCHING_POLICIES
from brigade.policies.cost_model import CostModel
from brigade.policies.placement import PLACEMENT_POLICIES
from brigade.sim.claiming import race, try_claim
from brigade.sim.faults import Faults
from brigade.sim.flips import Flips
from brigade.sim.handing import Handing
from brigade.sim.kinds import Kind
from brigade.sim.queue import SimQueue
from brigade.sim.registry import SimRegistry
from brigade.sim.request import SimRequest
from brigade.sim.result import SimResult
from brigade.sim.scenario import Scenario, WorkerSpec
from brigade.sim.slow import slowed
from brigade.sim.worker import SimWorker, WorkerState
from brigade.workload import WorkloadRequest, generate

REPORT_EVERY = 1000
"""Ended requests between two calls of `on_progress`."""


class Simulator:
    """One run. `skips` False steps every decode step on its own: slower, and exactly equal. `takes_blocks` True chooses
    every block even where nothing can be shared: slower, and exactly equal as well."""

    def __init__(
        self,
        scenario: Scenario,
        requests: Iterable[WorkloadRequest],
        *,
        skips: bool = True,
        takes_blocks: bool = False,
    ) -> None:
        workload = scenario.workload
        self.scenario = scenario
        self.skips = skips
        self.now_ns = 0
        self.result = SimResult()
        self.queue = SimQueue()
        self.registry = SimRegistry()
        self.batching = BATCHING_POLICIES[scenario.batching]
        self.placement = PLACEMENT_POLICIES[scenario.placement]
        # A request that is started again shares its prompt with itself.
        may_share = workload.has_prefixes or bool(scenario.failures)
        self.prefix_block_tokens = workload.prefix_block_tokens if may_share or takes_blocks else 0
        self.workers = [self._worker(index, spec) for index, spec in enumerate(scenario.workers)]
        self.by_id = {worker.worker_id: worker for worker in self.workers}
        self.prefillers: list[SimWorker] = []
        self.handing = Handing(self)
        self.faults = Faults(self)
        self.flips = Flips(self)
        self.race_state = 1
        self.num_open = 0  # requests that have arrived and not ended
        self._requests: Iterator[WorkloadRequest] = iter(requests)
        self._heap: list[tuple[int, int, int, int, object]] = []
        self._num_beats_queued = 0
        self._idle_since_ns = 0
        self._num_arrived = 0
        self._woken: list[SimWorker] = []
        self._interval_ns = round(scenario.heartbeat_interval_s * NS_PER_S)
        self._room_tokens = (0, 0)

    def run(self, on_progress: Callable[[int, int], None] | None = None) -> SimResult:
        """Run until every request has ended, or nobody is left to serve the rest. Ctrl-C keeps what was computed.

        `on_progress` is called with the number of ended requests and the time, now and then.
        """
        for worker in self.workers:
            self.at(round(worker.spec.start_s * NS_PER_S), Kind.START, worker.index, worker)
        self.faults.schedule(self.scenario.failures)
        self.flips.schedule(self.scenario.flips)
        self._next_arrival()
        try:
            self._loop(on_progress)
        except KeyboardInterrupt:
            self.result.was_interrupted = True
        self._finish()
        return self.result

    # -- events ----------------------------------------------------------------------------------------------------------

    def at(self, time_ns: int, kind: Kind, number: int, what: object, version: int = 0) -> None:
        """Schedule an event. `number` orders events of one kind at one instant."""
        heappush(self._heap, (time_ns, kind, number, version, what))

    def wake(self, worker: SimWorker, *, rings: bool = True) -> None:
        """Let a worker step once nothing else happens at this instant, and, if the bell `rings`, look at the queue: live
        workers look only when room, work, role or registry may have changed, not after every step."""
        worker.is_rung |= rings
        if not worker.is_poked:
            worker.is_poked = True
            self._woken.append(worker)

    def schedule_step(self, worker: SimWorker) -> None:
        heappush(self._heap, (worker.run_end_ns, Kind.STEP, worker.index, worker.version, worker))

    def _loop(self, on_progress: Callable[[int, int], None] | None) -> None:
        heap = self._heap
        acts: list[Callable[[object, int], None]] = [getattr(self, f"_on_{kind.name.lower()}") for kind in Kind]
        num_events, report_at = 0, REPORT_EVERY
        while heap:
            now_ns, kind, _, version, what = heappop(heap)
            assert now_ns >= self.now_ns, "time runs backward"
            self.now_ns = now_ns
            num_events += 1
            acts[kind](what, version)
            while self._woken and not (heap and heap[0][0] == now_ns):
                self._settle()
            if on_progress is not None and len(self.result.timelines) >= report_at:
                report_at += REPORT_EVERY
                on_progress(len(self.result.timelines), now_ns)
            if self._num_beats_queued < len(heap) or self._woken:
                self._idle_since_ns = now_ns
            elif self._is_over():
                break
        self.result.num_events = num_events

    def _is_over(self) -> bool:
        """Only heartbeats are left. Requests that are still open wait for a worker that never comes, once every worker has
        looked at the registry and the queue again in vain."""
        return not self.num_open or self.now_ns - self._idle_since_ns > 2 * self._interval_ns

    def _settle(self) -> None:
        woken, self._woken = self._woken, []
        if len(woken) > 1:
            woken.sort(key=lambda worker: worker.index)
        for worker in woken:
            is_rung, worker.is_poked, worker.is_rung = worker.is_rung, False, False
            if not worker.is_alive:
                continue
            self._step(worker)
            if is_rung and self.queue and worker.may_claim() and try_claim(self, worker):
                self._step(worker)
            if worker.desired_role is not None:
                self.flips.switch_if_idle(worker)

    def _step(self, worker: SimWorker) -> None:
        if not worker.is_stepping and worker.begin_step(self.now_ns, skips=self.skips):
            self.schedule_step(worker)
            if worker.in_step and self.queue and worker.may_claim():
                try_claim(self, worker)  # the step has taken work away: claim more while it runs

    # -- what happens ----------------------------------------------------------------------------------------------------

    def _on_start(self, what: object, version: int) -> None:
        worker = what
        assert isinstance(worker, SimWorker)
        worker.state = WorkerState.SERVING
        self.registry.beat(worker)
        for other in self.workers:  # the others see it with their next heartbeat
            if other is worker:
                self.refresh(other)
        self.update_prefillers()
        first_ns = self.now_ns + self._interval_ns * (worker.index + 1) // len(self.workers)
        self._num_beats_queued += 1
        self.at(first_ns, Kind.BEAT, worker.index, worker, worker.epoch)
        self.wake(worker)

    def _on_kill(self, what: object, version: int) -> None:
        self.faults.kill(what, version)

    def _on_detect(self, what: object, version: int) -> None:
        self.faults.detect(what, version)

    def _on_flip(self, what: object, version: int) -> None:
        self.flips.decide(what)

    def _on_beat(self, what: object, version: int) -> None:
        worker = what
        assert isinstance(worker, SimWorker)
        self._num_beats_queued -= 1
        if not worker.is_alive:
            return
        self.registry.beat(worker)
        if worker.role.prefills:
            self.refresh(worker)
            if worker.unplaced:
                self.handing.retry(worker)
            if self.queue:
                self.wake(worker)
        self._num_beats_queued += 1
        self.at(self.now_ns + self._interval_ns, Kind.BEAT, worker.index, worker)

    def _on_arrival(self, what: object, version: int) -> None:
        request = what
        assert isinstance(request, SimRequest)
        self._next_arrival()
        self.num_open += 1
        prefill_room, decode_room = self._room_tokens
        if request.isl > prefill_room or request.num_total_tokens > decode_room:
            self.end(request, RequestState.CANCELLED, refused=True)
        else:
            self.put(request)

    def _on_handed(self, what: object, version: int) -> None:
        self.handing.arrive(what, version)

    def _on_join(self, what: object, version: int) -> None:
        self.handing.join(what, version)

    def _on_step(self, what: object, version: int) -> None:
        worker = what
        assert isinstance(worker, SimWorker)
        if version != worker.version or not worker.is_stepping:
            return
        self.result.num_steps += worker.num_run_steps
        ended = worker.end_step()
        rings = bool(ended or worker.in_step)
        for request in ended:
            assert request.room is not None
            num_kv = request.isl + request.osl - 1
            worker.pool.fill(request, request.room, request.isl, num_kv)
            worker.pool.release(request, request.room)
            request.room = None
            self.end(request, RequestState.FINISHED)
        if worker.in_step:
            for request in worker.end_prefill():
                self.handing.end_prefill(worker, request)
        if worker.waiting:
            self.handing.admit_waiting(worker)
        self.wake(worker, rings=rings)

    # -- acts of several parts -------------------------------------------------------------------------------------------

    def put(self, request: SimRequest) -> None:
        """Queue a request; whoever is quickest claims it."""
        self.queue.put(request)
        race(self)

    def end(self, request: SimRequest, state: RequestState, *, refused: bool = False) -> None:
        """End a request and record it."""
        request.move(state)
        request.holder = None
        self.num_open -= 1
        is_finished = state is RequestState.FINISHED
        self.result.horizon_ns = max(self.result.horizon_ns, self.now_ns)
        self._record(request, last_token_ns=self.now_ns if is_finished else -1, refused=refused)

    def refresh(self, worker: SimWorker) -> None:
        """A worker reads the registry again."""
        views = self.registry.snapshot()
        worker.handed.clear()
        worker.refused = frozenset()
        if views is not worker.views:
            worker.views = views
            had_any = worker.has_any_target
            worker.has_any_target = self.handing.has_any_target(worker)
            worker.max_pool_tokens = self.handing.max_pool_tokens(worker)
            if worker.has_any_target and not had_any:
                self.wake(worker)

    def update_prefillers(self) -> None:
        """Roles or lives have changed."""
        self.prefillers = [worker for worker in self.workers if worker.is_open]
        alive = [view for view in self.registry.snapshot() if view.status is not None and view.role is not None]
        sizes = [(w.role, self.by_id[w.worker_id]) for w in alive]
        self._room_tokens = (
            max((w.num_blocks * w.block_size_tokens for role, w in sizes if role and role.prefills), default=1 << 60),
            max((w.num_blocks * w.block_size_tokens for role, w in sizes if role and role.decodes), default=1 << 60),
        )

    def costs_of(self, spec: WorkerSpec) -> CostModel:
        return slowed(self.scenario.profiles[spec.profile], spec.slowdown)

    def _worker(self, index: int, spec: WorkerSpec) -> SimWorker:
        scenario = self.scenario
        host_ns = scenario.profiles[spec.profile].host_step_ns
        worker = SimWorker(
            index,
            spec,
            self.costs_of(spec),
            block_size_tokens=scenario.block_size_tokens,
            host_step_ns=host_ns if scenario.host_step_s is None else round(scenario.host_step_s * NS_PER_S),
            prefix_block_tokens=self.prefix_block_tokens,
        )
        worker.set_largest_request(scenario.max_model_len_tokens)
        return worker

    def _next_arrival(self) -> None:
        work = next(self._requests, None)
        if work is not None:
            request = SimRequest(self._num_arrived, work)
            self._num_arrived += 1
            heappush(self._heap, (work.arrival_ns, Kind.ARRIVAL, request.index, 0, request))

    def _record(self, request: SimRequest, *, last_token_ns: int, refused: bool) -> None:
        self.result.timelines.add(
            index=request.index,
            priority_class=request.work.priority_class,
            isl=request.isl,
            num_out=request.num_out,
            arrival_ns=request.work.arrival_ns,
            claimed_ns=request.claimed_ns,
            first_token_ns=request.first_token_ns,
            decoding_ns=request.decoding_ns,
            last_token_ns=last_token_ns,
            num_cached=request.num_cached,
            attempts=request.attempt,
            refused=refused,
            slo=request.work.slo,
        )

    def _finish(self) -> None:
        """Record what never ended."""
        for request in sorted(self.open_requests(), key=lambda request: request.index):
            self.result.num_unfinished += 1
            self._record(request, last_token_ns=-1, refused=False)

    def open_requests(self) -> list[SimRequest]:
        """Return every request that has arrived and not ended, wherever it is."""
        found = {request.index: request for request in self.queue.requests()}
        for worker in self.workers:
            held = [*worker.claimed, *worker.active, *worker.unplaced, *worker.waiting, *worker.arriving.values()]
            held += [*worker.joining, *(entry[2] for entry in worker.batch), *self.faults.held_by(worker)]
            found.update((request.index, request) for request in (*held, *self.handing.on_the_way()))
        assert len(found) == self.num_open, f"{self.num_open} requests are open, {len(found)} are somewhere"
        return list(found.values())


def simulate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    skips: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimResult:
    """Run a scenario once, with its own seed or another."""
    requests = generate(
        scenario.workload,
        scenario.seed if seed is None else seed,
        unloaded_prefill_ns=scenario.unloaded_prefill_ns,
    )
    return Simulator(scenario, requests, skips=skips).run(on_progress)
