"""Everything that can happen next in a state, and the reductions that merge states nobody can tell apart."""

from verification.protocol.environment import environment_moves
from verification.protocol.faults import fault_moves
from verification.protocol.janitor import janitor_moves
from verification.protocol.model import Model, Moves, finish_scripts
from verification.protocol.owner import owner_moves
from verification.protocol.state import (
    ENDED,
    FREE,
    OPEN,
    PULL_FAILED,
    SAFE,
    STOPPING,
    USED,
    Block,
    DecodeEntry,
    Frame,
    Owner,
    Snapshot,
    State,
    Worker,
    replaced,
)
from verification.protocol.worker import worker_moves

_NEEDS_OLD_FRAMES = frozenset({"held_survive", "no_attempt_fence", "keep_cursor"})


def successors(model: Model, state: State) -> list[tuple[str, bool, State]]:
    """[(label, is it a fault, next state)]; raises Violation when a step would break I1, I2 or I3."""
    moves = Moves(state)
    owner_moves(model, state, moves)
    for worker_id, worker in enumerate(state.workers):
        if worker.alive:
            worker_moves(model, state, worker_id, moves)
    janitor_moves(model, state, moves)
    environment_moves(model, state, moves)
    finish_scripts(model, moves)
    fault_moves(model, state, moves)
    return moves.steps


def normalised(model: Model, state: State) -> State:
    """Sound reductions: forget what no later transition can tell apart."""
    redis, workers, owner, budgets, snapshot, environment = state
    if budgets[-1] == 0 and (snapshot is None or snapshot in (SAFE, USED)):
        snapshot, budgets = SAFE, model.no_budgets
    frames = redis.frames
    if owner.alive and not owner.forgot and not model.mistakes & _NEEDS_OLD_FRAMES:
        frames = tuple(frame for frame in frames if not _is_surely_dropped(owner, frame))
    head = redis.head if "keep_cursor" in model.mistakes else 0
    redis = redis._replace(head=head, frames=frames)
    workers = _with_forgotten_generations(redis.streams, snapshot, workers)
    return State(redis, workers, owner, budgets, snapshot, environment)


def _is_surely_dropped(owner: Owner, frame: Frame) -> bool:
    request = owner.requests[frame.request]
    if request.phase in ENDED or request.phase == STOPPING or frame.attempt < request.attempt:
        return True
    if request.phase != OPEN:
        return False
    too_old = frame.kind != PULL_FAILED and len(frame.tokens) <= len(request.accepted)
    return frame.attempt != request.attempt or too_old


def _with_forgotten_generations(
    streams: tuple[tuple[DecodeEntry, ...], ...], snapshot: Snapshot | str | None, workers: tuple[Worker, ...]
) -> tuple[Worker, ...]:
    """The generation of a free block that no handle names is set back to 0."""
    if not any(block.use == FREE and block.generation for worker in workers for block in worker.pool):
        return workers
    named = {(job.source, job.source_block) for worker in workers for job in worker.jobs if job.source is not None}
    for stream in streams + (snapshot.redis.streams if isinstance(snapshot, Snapshot) else ()):
        for entry in stream:
            named.add((entry.source, entry.block))
    for worker_id, worker in enumerate(workers):
        pool = worker.pool
        for index, block in enumerate(pool):
            if block.use == FREE and block.generation and (worker_id, index) not in named:
                pool = replaced(pool, index, Block(0, FREE, None))
        if pool is not worker.pool:
            workers = replaced(workers, worker_id, worker._replace(pool=pool))
    return workers
