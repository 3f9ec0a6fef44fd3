"""From the queue to a worker: the live batching policy chooses from a live window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brigade.core.messages import Role
from brigade.core.request import RequestState
from brigade.policies.batching import PrefillView
from brigade.policies.claim_order import yield_s

if TYPE_CHECKING:
    from brigade.sim.simulator import Simulator
    from brigade.sim.worker import SimWorker

_RACE_FACTOR, _RACE_STEP, _RACE_MASK = 6364136223846793005, 1442695040888963407, (1 << 64) - 1


def race(sim: Simulator) -> None:
    """Something was queued: all open workers hear of it at once. The least busy one reads the queue first; among equals chance
    says who does."""
    prefillers = sim.prefillers
    num = len(prefillers)
    if num > 1:
        sim.race_state = (sim.race_state * _RACE_FACTOR + _RACE_STEP) & _RACE_MASK
        first = (sim.race_state >> 33) % num
        prefillers = prefillers[first:] + prefillers[:first]
        prefillers.sort(key=lambda worker: yield_s(worker.num_left_tokens))
    for worker in prefillers:
        if worker.may_claim() and try_claim(sim, worker):
            sim.wake(worker)
        if not sim.queue:
            return


def try_claim(sim: Simulator, worker: SimWorker) -> bool:
    """Claim until the policy or the worker has had enough. False when nothing was claimed."""
    has_claimed = False
    queue, pool = sim.queue, worker.pool
    while queue and worker.may_claim():
        choice = sim.batching(
            PrefillView(
                waiting=queue.window(),
                budget_tokens=worker.max_batch_tokens - worker.num_unstarted_tokens,
                num_blocks=worker.num_blocks,
                block_size_tokens=worker.block_size_tokens,
                num_available_blocks=pool.ledger.num_available - worker.num_unstarted_blocks,
                num_in_flight_blocks=pool.num_lent + worker.num_held_blocks + worker.num_unstarted_blocks,
                max_in_flight_blocks=worker.max_in_flight_blocks,
                reserves_answers=worker.role is Role.MIXED,
                max_pool_tokens=worker.max_pool_tokens,
            )
        )
        if not choice.chosen:
            break
        has_claimed = True
        for waiting in choice.chosen:
            request = queue.take(waiting.job.request_id)
            request.move(RequestState.PREFILLING)
            request.holder = worker
            if request.claimed_ns < 0:
                request.claimed_ns = sim.now_ns
            needed = request.num_total_tokens if worker.role is Role.MIXED else request.isl + request.num_out
            if worker.blocks_for(needed) > worker.num_blocks:
                sim.end(request, RequestState.FAILED)  # no living worker has room: its owner is told, and gives up
            else:
                worker.add(request)
    if has_claimed and worker.cut(sim.now_ns):
        sim.schedule_step(worker)
    return has_claimed
