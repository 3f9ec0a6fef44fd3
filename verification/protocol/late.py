"""What a script does that reaches Redis after its sender has given it up."""

from verification.protocol.model import Model
from verification.protocol.state import (
    CANCELLED,
    DECODING,
    FAILED,
    FINISHED,
    HANDED,
    INBOX,
    QUEUED,
    LateCommand,
    PrefillEntry,
    Record,
    Redis,
    State,
    added,
    replaced,
    with_record,
    with_stream,
    without,
)


def executed_late(model: Model, state: State, command: LateCommand) -> Redis:
    """The script compares as always; it changes nothing where it is refused."""
    redis, router = state.redis, state.redis.router
    if command.kind == "migration":
        return _migrated(state, command)
    if command.kind == "strike off":  # (mistake only) second half of a drain in two steps
        return redis._replace(frames=(), router=router._replace(listed=False))
    listed = router.listed and command.router_id == router.router_id
    if not listed and "late_ignores_router_id" not in model.mistakes:
        return redis  # rule 23
    record = redis.records[command.request]
    if command.kind == "record":
        if record is not None:
            return redis
    elif record is not None:
        if record.attempt >= command.target:
            return redis
        if record.status in (CANCELLED, FAILED) or (record.status == FINISHED and not command.reopen):
            return redis
    entry = PrefillEntry(command.request, command.target, command.prefix, INBOX)
    redis = with_record(redis, command.request, Record(command.target, QUEUED, None))
    homes = replaced(router.homes, command.request, command.router_id)
    return redis._replace(queue=added(redis.queue, entry), router=router._replace(homes=homes))


def _migrated(state: State, command: LateCommand) -> Redis:
    """Rule 9, executed late: needs DECODING, holder = sender, and a target that accepts."""
    redis, entry, target = state.redis, command.entry, command.to_worker
    assert entry is not None
    sender = entry.source
    if redis.records[entry.request] != Record(entry.attempt, DECODING, sender):
        return redis
    there = redis.registry[target]
    if there.role not in "DM" or not there.accepting or not state.workers[target].heartbeat:
        return redis
    for own in redis.streams[sender]:
        if own.request == entry.request and own.attempt == entry.attempt:
            redis = with_stream(redis, sender, without(redis.streams[sender], own))
    redis = with_record(redis, entry.request, Record(entry.attempt, HANDED, target))
    return with_stream(redis, target, added(redis.streams[target], entry))
