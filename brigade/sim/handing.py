"""From the end of a prefill to the running batch of a decode worker: placing, handing over, admitting, copying."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from brigade.core.request import RequestState
from brigade.core.timeline import NS_PER_S
from brigade.policies.placement import Handed, PlacementView, can_decode
from brigade.sim.kinds import Kind
from brigade.sim.pool import drop_rest
from brigade.sim.registry import MODEL
from brigade.sim.request import SimRequest

if TYPE_CHECKING:
    from brigade.sim.simulator import Simulator
    from brigade.sim.worker import SimWorker

_NOTHING_HANDED = Handed()


class Handing:
    """Acts for all workers; each call names the one it acts for."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._hand_over_ns = round(sim.scenario.hand_over_s * NS_PER_S)
        self._on_the_way: dict[int, SimRequest] = {}

    # -- the prefilling side ---------------------------------------------------------------------------------------------

    def end_prefill(self, worker: SimWorker, request: SimRequest) -> None:
        """Its first token is drawn: end it with that token, or find somebody to decode the rest."""
        hold = request.loan
        assert hold is not None
        if request.num_out + 1 == request.osl:
            worker.pool.release(request, hold)
            request.loan = None
            self._count_token(request)
            self._sim.end(request, RequestState.FINISHED)
        else:
            worker.pool.lend(request, hold)
            self._place(worker, request)

    def retry(self, worker: SimWorker) -> None:
        """Place what found no target before."""
        unplaced, worker.unplaced = worker.unplaced, []
        for request in unplaced:
            self._place(worker, request)

    def has_any_target(self, worker: SimWorker) -> bool:
        """Whether some worker that it sees decodes at all."""
        view = self._view(worker, 1)
        return any(can_decode(other, view) for other in worker.views)

    def max_pool_tokens(self, worker: SimWorker) -> int:
        """Return the size of the largest pool of living workers that prefill, as it sees them."""
        sizes = [
            view.status.num_blocks * view.status.block_size_tokens
            for view in worker.views
            if view.status is not None and view.role is not None and view.role.prefills
        ]
        return max(sizes, default=0)

    def _place(self, worker: SimWorker, request: SimRequest) -> None:
        sim = self._sim
        while True:
            target = sim.placement(self._view(worker, request.num_total_tokens))
            if target.worker_id is None:
                worker.unplaced.append(request)
                return
            if sim.registry.takes(target.worker_id, target.epoch):
                break
            sim.refresh(worker)  # the registry has changed under us
            worker.refused = worker.refused | {target.worker_id}
        self._note_handed(worker, target.worker_id, worker.blocks_for(request.num_total_tokens))
        self._count_token(request)
        decoder = sim.by_id[target.worker_id]
        if decoder is not worker and request.loan is not None:
            drop_rest(request.loan)
        request.move(RequestState.HANDED)
        request.holder = decoder
        if self._hand_over_ns and decoder is not worker:
            self._on_the_way[request.index] = request
            sim.at(sim.now_ns + self._hand_over_ns, Kind.HANDED, request.index, request, request.attempt)
        else:
            self._take_up(decoder, request)

    def _view(self, worker: SimWorker, num_total_tokens: int) -> PlacementView:
        return PlacementView(
            workers=worker.views,
            self_id=worker.worker_id,
            model_revision=MODEL,
            num_total_tokens=num_total_tokens,
            handed=worker.handed,
            refused=worker.refused,
        )

    def _note_handed(self, worker: SimWorker, target: str, num_blocks: int) -> None:
        before = worker.handed.get(target, _NOTHING_HANDED)
        worker.handed[target] = Handed(num_requests=before.num_requests + 1, num_blocks=before.num_blocks + num_blocks)

    def _count_token(self, request: SimRequest) -> None:
        request.num_out += 1
        if request.first_token_ns < 0:
            request.first_token_ns = self._sim.now_ns

    # -- the decoding side -----------------------------------------------------------------------------------------------

    def on_the_way(self) -> list[SimRequest]:
        """Return what is handed over and not yet delivered."""
        return list(self._on_the_way.values())

    def arrive(self, what: object, attempt: int) -> None:
        """A decode job is delivered, unless its attempt has ended."""
        request = what
        assert isinstance(request, SimRequest)
        if request.attempt == attempt and self._on_the_way.pop(request.index, None) is not None:
            assert request.holder is not None
            self._take_up(request.holder, request)

    def forget(self, request: SimRequest) -> None:
        """Its attempt has ended."""
        self._on_the_way.pop(request.index, None)

    def _take_up(self, worker: SimWorker, request: SimRequest) -> None:
        worker.waiting.append(request)
        if worker.is_alive:
            self.admit_waiting(worker)

    def admit_waiting(self, worker: SimWorker) -> None:
        """Give room to waiting jobs in their order, as far as it goes. Only a job that was prefilled here with room for its
        whole answer may overtake one that has none."""
        had_waiting = len(worker.waiting)
        is_out_of_room = False
        kept: deque[SimRequest] = deque()
        while worker.waiting:
            if len(worker.arriving) + worker.num_decoding >= worker.max_num_seqs:
                break
            request = worker.waiting.popleft()
            is_local = request.lender is worker
            has_promise = is_local and request.loan is not None and request.loan.rest is not None
            if is_out_of_room and not has_promise:
                kept.append(request)
            elif not self._begin(worker, request, is_local):
                is_out_of_room = True
                kept.append(request)
                if not worker.role.prefills:
                    break
        kept.extend(worker.waiting)
        worker.waiting = kept
        if had_waiting and not kept:
            self._sim.wake(worker)  # no longer saturated: it may claim

    def _begin(self, worker: SimWorker, request: SimRequest, is_local: bool) -> bool:
        """Take room and start bringing the KV here. False when there is no room now."""
        num_total = worker.blocks_for(request.num_total_tokens)
        if is_local:
            hold = request.loan
            assert hold is not None
            if not worker.pool.can_take_over(hold, num_total):
                return False
            worker.pool.take_over(request, hold, num_total)
            request.room, request.loan = hold, None
            self._join_batch(worker, request)
            return True
        num_kv_tokens = request.isl + request.num_out - 1
        if not worker.pool.can_admit(request, num_total, num_kv_tokens):
            return False
        request.room, num_here = worker.pool.admit(request, num_total)
        num_missing = num_kv_tokens - num_here
        now_ns = self._sim.now_ns
        ends_ns = now_ns
        if num_missing:  # one copy at a time
            ends_ns = max(now_ns, worker.copy_free_ns) + worker.costs.kv_transfer_ns(num_missing)
            worker.copy_free_ns = ends_ns
        worker.arriving[request.index] = request
        if ends_ns == now_ns:
            self.join(request, request.attempt)
        else:
            self._sim.at(ends_ns, Kind.JOIN, request.index, request, request.attempt)
        return True

    def join(self, what: object, attempt: int) -> None:
        """Its KV is here, unless its attempt has ended: the loan ends, and it takes part from the next step on."""
        request = what
        assert isinstance(request, SimRequest)
        worker = request.holder
        if request.attempt != attempt or worker is None or request.index not in worker.arriving:
            return
        del worker.arriving[request.index]
        assert request.room is not None
        worker.pool.fill(request, request.room, 0, request.isl + request.num_out - 1)
        self.end_loan(request)
        self._join_batch(worker, request)

    def end_loan(self, request: SimRequest) -> None:
        """The reader has copied, or never will."""
        if request.loan is not None:
            request.loan.pool.release(request, request.loan)
            request.loan = None
            assert request.lender is not None
            if self._sim.queue or request.lender.claimed or request.lender.waiting:
                self._sim.wake(request.lender)

    def _join_batch(self, worker: SimWorker, request: SimRequest) -> None:
        request.move(RequestState.DECODING)
        if request.decoding_ns < 0:
            request.decoding_ns = self._sim.now_ns
        worker.joining.append(request)
        if worker.cut(self._sim.now_ns):
            self._sim.schedule_step(worker)
        self._sim.wake(worker, rings=False)
