"""The invariants that are read off a state; I1, I2 and I3 are checked where a token is accepted or computed."""

from verification.protocol.model import Model
from verification.protocol.state import (
    ANSWERED,
    DONE,
    ENDED,
    ERROR,
    FLIP_WANTED,
    FREE,
    LEFT,
    TERMINAL,
    WAITING,
    State,
    Violation,
)


def check_always(model: Model, state: State) -> None:
    """I5 and I6 in every state, and the bound on attempts of I4; raises Violation."""
    redis = state.redis
    for worker_id, registration in enumerate(redis.registry):
        entries = redis.streams[worker_id]
        if registration.role != "P" or not entries or registration.epoch == 0:
            continue
        if state.workers[worker_id].mode != FLIP_WANTED:
            raise Violation(
                f"I5: decode entry r{entries[0].request} on w{worker_id}, which has switched to prefill "
                f"(epoch {registration.epoch})"
            )
    for record in redis.records:
        if record and record.attempt > model.scenario.max_attempts:
            raise Violation(f"I4: attempts run away (attempt {record.attempt})")
    may_fail = model.scenario.owner_slow or model.scenario.attempt_limit
    if not may_fail and any(request.phase == ERROR for request in state.owner.requests):
        raise Violation("I6: an answer ends with an error though nothing died")


def faults_of_quiet(model: Model, state: State) -> list[str]:
    """I4: what is wrong with a state in which nothing can happen any more without a fault."""
    redis, bad = state.redis, []
    for index, record in enumerate(redis.records):
        if record is not None and record.status not in TERMINAL:
            bad.append(f"record of r{index} never ends ({record.status}, attempt {record.attempt})")
    for index, request in enumerate(state.owner.requests):
        if request.phase not in ENDED:
            bad.append(f"client of r{index} waits for ever (has {len(request.accepted)} tokens)")
        if request.phase == DONE and len(request.accepted) != model.scenario.num_tokens:
            bad.append(f"client of r{index} has {len(request.accepted)} tokens")
    for worker_id, worker in enumerate(state.workers):
        if worker.alive:
            for block_index, block in enumerate(worker.pool):
                if block.use != FREE:
                    bad.append(f"block {block_index} of w{worker_id} is never freed ({block.use})")
            if worker.jobs:
                bad.append(f"w{worker_id} keeps a job ({worker.jobs[0].step})")
        if redis.streams[worker_id]:
            bad.append(f"decode entry of r{redis.streams[worker_id][0].request} left on w{worker_id}")
    environment = state.environment
    if state.owner.alive and WAITING in environment.clients:
        bad.append("the client of the branches waits for ever")
    if ANSWERED in environment.clients and any(request.phase == LEFT for request in state.owner.requests):
        bad.append("the client was answered without all of its branches")
    if redis.frames and (not state.owner.alive or not redis.router.listed):
        bad.append("the stream of a dead router is left")
    if redis.queue:
        bad.append(f"prefill entry left {tuple(redis.queue[0])}")
    return bad
