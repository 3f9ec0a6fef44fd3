"""How a failed pull is told to the owner."""

from verification.protocol.state import (
    PULL_FAILED,
    DecodeEntry,
    Frame,
    Redis,
    is_stale,
    with_frame,
    with_stream,
    without,
)


def with_pull_failure(redis: Redis, worker_id: int, entry: DecodeEntry | None, index: int, attempt: int) -> Redis:
    """Rule 10: one transaction deletes the entry and, if the record is still this worker's, reports to the owner."""
    if entry is not None:
        redis = with_stream(redis, worker_id, without(redis.streams[worker_id], entry))
    record = redis.records[index]
    if record is None or is_stale(redis.records, index, attempt) or record.holder != worker_id:
        return redis
    return with_frame(redis, Frame(index, attempt, (), PULL_FAILED))
