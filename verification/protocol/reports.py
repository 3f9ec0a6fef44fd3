"""How a failed pull is told to the owner."""

from verification.protocol.model import Model
from verification.protocol.state import (
    PULL_FAILED,
    DecodeEntry,
    Frame,
    Record,
    Redis,
    is_stale,
    with_frame,
    with_record,
    with_stream,
    without,
)


def with_pull_failure(
    model: Model, redis: Redis, worker_id: int, entry: DecodeEntry | None, index: int, attempt: int
) -> Redis:
    """Rule 10: one transaction deletes the entry and, if the record is still this worker's, clears its holder and reports.

    The frame makes the owner quick; the record makes it certain, since MAXLEN may take the frame.
    """
    if entry is not None:
        redis = with_stream(redis, worker_id, without(redis.streams[worker_id], entry))
    record = redis.records[index]
    if record is None or is_stale(redis.records, index, attempt) or record.holder != worker_id:
        return redis
    if "pull_failure_not_recorded" not in model.mistakes:
        redis = with_record(redis, index, Record(attempt, record.status, None))
    return with_frame(redis, Frame(index, attempt, (), PULL_FAILED))
