"""The owner's own lease: its heartbeat, a router id that was struck off, and a cancel that nothing sent earlier can undo."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    CANCELLED,
    ENDED,
    ERROR,
    FAILED,
    FINISHED,
    NEW,
    STOPPED,
    STOPPING,
    Record,
    Redis,
    State,
    with_record,
)


def has_its_lease(model: Model, state: State, moves: Moves) -> bool:
    """Adds the heartbeat's steps; False while the owner may do nothing else, since its id was struck off (rule 23)."""
    redis, router = state.redis, state.redis.router
    goes_on = "goes_on_after_drain" in model.mistakes
    if not router.heartbeat and (router.listed or goes_on):
        moves.local("owner: heartbeat visible again", redis=redis._replace(router=router._replace(heartbeat=True)))
    if router.listed or goes_on:
        return True
    requests = []
    for index, request in enumerate(state.owner.requests):
        if request.phase == STOPPING:
            request = request._replace(phase=STOPPED, held=(), target=0)
        elif request.phase not in ENDED and (request.phase != NEW or redis.records[index] is not None):
            request = request._replace(phase=ERROR, held=(), target=0)
        requests.append(request)
    new_router = router._replace(router_id=router.router_id + 1, heartbeat=True, listed=True)
    moves.local(
        "owner: its id was struck off: ends its clients' streams with an error, registers under a new id",
        redis=redis._replace(router=new_router, frames=()),
        owner=state.owner._replace(requests=tuple(requests)),
    )
    return False


def cancelled_for_good(model: Model, redis: Redis, index: int) -> Redis:
    """Rule 22: CANCELLED also over a missing record and over FINISHED, so that no late script starts the request again."""
    record = redis.records[index]
    if record is None:
        missing = "cancel_without_tombstone" in model.mistakes
        return redis if missing else with_record(redis, index, Record(1, CANCELLED, None))
    if record.status in (CANCELLED, FAILED):
        return redis
    if record.status == FINISHED and "cancel_leaves_finished" in model.mistakes:
        return redis
    return with_record(redis, index, Record(record.attempt, CANCELLED, record.holder))
