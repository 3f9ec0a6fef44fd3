"""Faults, and things that happen by themselves."""

from verification.protocol.model import Model, Moves
from verification.protocol.owner_lease import cancelled_for_good
from verification.protocol.state import (
    CANCELLED,
    EARLY,
    FLIP_WANTED,
    FORCE,
    FREE,
    LEFT,
    NEW,
    OPEN,
    RAISE,
    REPLY,
    SERVING,
    STOPPING,
    TERMINAL,
    USED,
    Block,
    Owner,
    Record,
    Request,
    Snapshot,
    State,
    Worker,
    replaced,
    with_record,
)

UNENDED = frozenset({OPEN, RAISE, FORCE, REPLY, EARLY})


def fault_moves(model: Model, state: State, moves: Moves) -> None:
    for worker_id in range(model.num_workers):
        _worker_faults(model, state, worker_id, moves)
    _owner_faults(model, state, moves)
    _redis_faults(model, state, moves)


def _with_worker(state: State, worker_id: int, worker: Worker, budgets: tuple[int, ...]) -> State:
    return state._replace(workers=replaced(state.workers, worker_id, worker), budgets=budgets)


def _is_served(state: State, without: int, roles: str) -> bool:
    """Is there another live worker of one of these roles that is not in a flip? Faults never take the last one."""
    return any(
        other != without and worker.alive and state.redis.registry[other].role in roles and worker.mode == SERVING
        for other, worker in enumerate(state.workers)
    )


def _worker_faults(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    worker, budgets = state.workers[worker_id], state.budgets
    role = state.redis.registry[worker_id].role
    others_serve = _is_served(state, worker_id, "PM") and _is_served(state, worker_id, "DM")
    if worker.alive and model.can(state, "crash") and others_serve:
        pool = tuple(Block(block.generation, FREE, block.content) for block in worker.pool)
        dead = Worker(False, worker.heartbeat, pool, (), SERVING)
        moves.fault(f"w{worker_id} crashes", _with_worker(state, worker_id, dead, model.paid(budgets, "crash")))
    if not worker.alive and worker.heartbeat:
        gone = worker._replace(heartbeat=False)
        moves.time_passes(f"heartbeat of dead w{worker_id} ends", _with_worker(state, worker_id, gone, budgets))
        if model.can(state, "restart"):
            pool = tuple(Block(block.generation, FREE, None) for block in worker.pool)
            again = Worker(True, True, pool, (), SERVING)
            moves.fault(
                f"w{worker_id} restarts under the same name within the TTL",
                _with_worker(state, worker_id, again, model.paid(budgets, "restart")),
            )
    if worker.alive and worker.heartbeat and worker.jobs and model.can(state, "slow"):
        unseen = worker._replace(heartbeat=False)
        moves.fault(
            f"heartbeat of w{worker_id} ends though it lives (paused)",
            _with_worker(state, worker_id, unseen, model.paid(budgets, "slow")),
        )
    may_flip = worker.alive and worker.mode == SERVING and role in "PD"
    if may_flip and model.can(state, "flip") and _is_served(state, worker_id, role + "M"):
        wanted = worker._replace(mode=FLIP_WANTED)
        moves.fault(
            f"balancer wants w{worker_id} to flip",
            _with_worker(state, worker_id, wanted, model.paid(budgets, "flip")),
        )


def _owner_faults(model: Model, state: State, moves: Moves) -> None:
    redis, owner, budgets = state.redis, state.owner, state.budgets
    recorded = any(redis.records) or bool(state.environment.late)
    if owner.alive and model.can(state, "cancel") and not owner.forgot and not model.scenario.branches:
        for index, request in enumerate(owner.requests):
            if request.phase in UNENDED or (request.phase == NEW and model.scenario.late):
                _cancel(model, state, index, request, moves)
    if owner.alive and model.can(state, "stop"):
        _stop(model, state, moves)
    if owner.alive and redis.router.heartbeat and model.can(state, "owner_slow"):
        router = redis.router._replace(heartbeat=False)
        moves.fault(
            "heartbeat of the owner ends though it lives (paused)",
            state._replace(redis=redis._replace(router=router), budgets=model.paid(budgets, "owner_slow")),
        )
    if owner.alive and model.can(state, "owner_crash") and recorded:
        then = state._replace(owner=Owner(False, 0, (), False), budgets=model.paid(budgets, "owner_crash"))
        moves.fault("owner crashes", then)
    if owner.alive and model.can(state, "trim") and redis.frames:
        frame = redis.frames[0]
        moves.fault(
            f"MAXLEN cuts the unread frame r{frame.request}@{frame.attempt} {frame.tokens}",
            state._replace(redis=redis._replace(frames=redis.frames[1:]), budgets=model.paid(budgets, "trim")),
        )


def _cancel(model: Model, state: State, index: int, request: Request, moves: Moves) -> None:
    """Rule 16: a cancel is a state in the record, whatever the attempt."""
    redis, record = state.redis, state.redis.records[index]
    if model.scenario.late:
        redis = cancelled_for_good(model, redis, index)
    elif record is not None and record.status not in TERMINAL and "cancel_hint_only" not in model.mistakes:
        redis = with_record(redis, index, Record(record.attempt, CANCELLED, record.holder))
    highest = max(request.attempt, record.attempt if record else 0)
    left = Request(LEFT, highest, request.accepted, (), 0, ())
    owner = state.owner._replace(requests=replaced(state.owner.requests, index, left))
    moves.fault(
        f"client of r{index} leaves: owner records CANCELLED",
        state._replace(redis=redis, owner=owner, budgets=model.paid(state.budgets, "cancel")),
    )


def _stop(model: Model, state: State, moves: Moves) -> None:
    """A stop string is found in accepted text; the answer ends there, whatever the owner is doing for the request."""
    for index, request in enumerate(state.owner.requests):
        if request.phase in (OPEN, RAISE, FORCE, REPLY) and request.accepted:
            stopping = request._replace(phase=STOPPING, held=(), early_prefix=())
            owner = state.owner._replace(requests=replaced(state.owner.requests, index, stopping))
            moves.fault(
                f"stop string in r{index}: its answer ends after {len(request.accepted)} tokens",
                state._replace(owner=owner, budgets=model.paid(state.budgets, "stop")),
            )


def _outage(model: Model, state: State, moves: Moves) -> None:
    """Redis comes back with everything but the heartbeats, whose TTL has run out."""
    workers = tuple(worker._replace(heartbeat=False) for worker in state.workers)
    redis = state.redis._replace(router=state.redis.router._replace(heartbeat=False))
    moves.fault(
        "Redis is away for longer than a TTL: all heartbeats are gone",
        state._replace(
            redis=redis,
            workers=workers,
            budgets=model.paid(state.budgets, "outage"),
            environment=state.environment._replace(settling=True),
        ),
    )


def _redis_faults(model: Model, state: State, moves: Moves) -> None:
    redis, snapshot = state.redis, state.snapshot
    if model.can(state, "outage"):
        _outage(model, state, moves)
    if model.can(state, "loss") and snapshot is None and any(redis.records):
        then = state._replace(snapshot=Snapshot(redis, 0), budgets=model.paid(state.budgets, "loss"))
        moves.steps.append(("(Redis: last fsync is here)", True, then))
    if isinstance(snapshot, Snapshot) and snapshot.num_writes > 0:
        earlier = snapshot.redis
        if model.scenario.flip == 0:
            earlier = earlier._replace(registry=redis.registry)
        owner = state.owner._replace(forgot=state.owner.alive)
        moves.fault(
            f"Redis forgets its last {snapshot.num_writes} writes",
            state._replace(redis=earlier, owner=owner, snapshot=USED),
        )
