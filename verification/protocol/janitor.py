"""The janitor: any router or balancer. It deletes what the record calls stale, and ends what a dead owner left."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    CANCELLED,
    INBOX,
    TERMINAL,
    LateCommand,
    Record,
    State,
    added,
    is_stale,
    replaced,
    with_record,
    with_stream,
    without,
)


def janitor_moves(model: Model, state: State, moves: Moves) -> None:
    if "no_janitor" not in model.mistakes:
        _delete_stale_entries(model, state, moves)
    if model.scenario.leases:
        _drain_router(model, state, moves)
    elif not state.owner.alive:
        _sweep_dead_owner(model, state, moves)


def _delete_stale_entries(model: Model, state: State, moves: Moves) -> None:
    """Rule 14: for workers without heartbeat."""
    redis = state.redis
    for entry in dict.fromkeys(redis.queue):
        if entry.consumer == INBOX or not model.sees_gone(state, entry.consumer, ""):
            continue
        if is_stale(redis.records, entry.request, entry.attempt):
            moves.script(
                f"janitor: deletes stale pending r{entry.request} attempt {entry.attempt} of w{entry.consumer}",
                redis._replace(queue=without(redis.queue, entry)),
                may_lose_reply=False,
            )
    for worker_id in range(model.num_workers):
        if not model.sees_gone(state, worker_id, ""):
            continue
        for decode_entry in redis.streams[worker_id]:
            if is_stale(redis.records, decode_entry.request, decode_entry.attempt):
                moves.script(
                    f"janitor: deletes stale decode entry r{decode_entry.request} attempt {decode_entry.attempt} "
                    f"of w{worker_id}",
                    with_stream(redis, worker_id, without(redis.streams[worker_id], decode_entry)),
                    may_lose_reply=False,
                )


def _sweep_dead_owner(model: Model, state: State, moves: Moves) -> None:
    """Rule 13 in the scenarios without an owner's heartbeat: request by request."""
    redis = state.redis
    if "no_orphan_sweep" not in model.mistakes:
        for index, record in enumerate(redis.records):
            if record and record.status not in TERMINAL:
                moves.script(
                    f"janitor: owner of r{index} is gone: CANCELLED",
                    with_record(redis, index, Record(record.attempt, CANCELLED, record.holder)),
                    may_lose_reply=False,
                )
    if redis.frames:
        moves.script("janitor: deletes tokens of the dead router", redis._replace(frames=()), may_lose_reply=False)


def _drain_router(model: Model, state: State, moves: Moves) -> None:
    """Rule 13 and 23: one script, heartbeat absent => all its requests CANCELLED, its stream deleted, its id struck off."""
    redis, router = state.redis, state.redis.router
    if router.heartbeat or not router.listed:
        return
    if state.environment.settling and "janitor_acts_at_once" not in model.mistakes:
        return
    records = redis.records
    for index, record in enumerate(records):
        if record and record.status not in TERMINAL and router.homes[index] == router.router_id:
            records = replaced(records, index, Record(record.attempt, CANCELLED, record.holder))
    label = f"janitor: router id {router.router_id} has no heartbeat: its requests CANCELLED"
    if "drain_in_two_steps" in model.mistakes:
        strike_off = LateCommand("strike off", -1, router.router_id, 0, (), False)
        if strike_off in state.environment.late:
            return
        late = added(state.environment.late, strike_off)
        environment = state.environment._replace(late=late)
        then = redis._replace(records=records)
        moves.script(label, then, environment=environment, may_lose_reply=False)
        return
    moves.script(
        f"{label}, its stream deleted, its id struck off",
        redis._replace(records=records, frames=(), router=router._replace(listed=False)),
        may_lose_reply=False,
    )
