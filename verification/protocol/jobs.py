"""Small functions on the jobs of a worker, shared by the decode steps."""

from verification.protocol.model import Model
from verification.protocol.reports import with_pull_failure
from verification.protocol.state import (
    Block,
    DecodeEntry,
    Job,
    Redis,
    State,
    Worker,
    added,
    replaced,
    with_freed,
    with_stream,
    without,
)


def entry_of(redis: Redis, worker_id: int, job: Job) -> DecodeEntry | None:
    """The job's entry on the worker's own decode stream, if it is still there."""
    for entry in redis.streams[worker_id]:
        if entry.request == job.request and entry.attempt == job.attempt:
            return entry
    return None


def without_entry(redis: Redis, worker_id: int, job: Job) -> Redis:
    entry = entry_of(redis, worker_id, job)
    return redis if entry is None else with_stream(redis, worker_id, without(redis.streams[worker_id], entry))


def with_step(
    state: State, worker_id: int, job: Job, then: Job, *, pool: tuple[Block, ...] | None = None
) -> tuple[Worker, ...]:
    """The workers after a job has moved to its next step."""
    worker = state.workers[worker_id]
    jobs = added(without(worker.jobs, job), then)
    return replaced(state.workers, worker_id, worker._replace(jobs=jobs, pool=worker.pool if pool is None else pool))


def without_job(state: State, worker_id: int, job: Job) -> tuple[Worker, ...]:
    """The workers after a job has gone and its block is free."""
    worker = state.workers[worker_id]
    gone = worker._replace(pool=with_freed(worker.pool, job.block), jobs=without(worker.jobs, job))
    return replaced(state.workers, worker_id, gone)


def pull_failure(model: Model, state: State, worker_id: int, job: Job) -> Redis:
    entry = entry_of(state.redis, worker_id, job)
    return with_pull_failure(model, state.redis, worker_id, entry, job.request, job.attempt)
