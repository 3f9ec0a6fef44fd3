"""A worker, part 1: heartbeat, claim, own pending entries, own decode stream, leases of lent blocks."""

from verification.protocol.decode_run import batch_moves
from verification.protocol.decode_steps import decode_job_moves
from verification.protocol.flip import flip_moves
from verification.protocol.model import Model, Moves
from verification.protocol.prefill_steps import prefill_job_moves
from verification.protocol.reports import with_pull_failure
from verification.protocol.state import (
    CLAIMED,
    DECODE_STEPS,
    DECODING,
    FREE,
    HANDED,
    INBOX,
    LENT,
    PREFILLED,
    PREFILLING,
    QUEUED,
    READ,
    SERVING,
    Job,
    PrefillEntry,
    Record,
    State,
    Worker,
    added,
    is_stale,
    replaced,
    with_freed,
    with_record,
    with_stream,
    without,
)


def worker_moves(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """Everything that one live worker can do next."""
    worker = state.workers[worker_id]
    if not worker.heartbeat:
        moves.local(
            f"w{worker_id}: heartbeat visible again",
            workers=replaced(state.workers, worker_id, worker._replace(heartbeat=True)),
        )
    _claim(model, state, worker_id, moves)
    _own_pending(model, state, worker_id, moves)
    _read_decode_stream(model, state, worker_id, moves)
    for job in worker.jobs:
        if job.step in (CLAIMED, PREFILLED):
            prefill_job_moves(model, state, worker_id, job, moves)
        else:
            decode_job_moves(model, state, worker_id, job, moves)
    if model.scenario.batched:
        batch_moves(model, state, worker_id, moves)
    _end_leases(model, state, worker_id, moves)
    flip_moves(model, state, worker_id, moves)


def _has_free_block(worker: Worker) -> bool:
    return any(block.use == FREE for block in worker.pool)


def _with_claim(state: State, worker_id: int, entry: PrefillEntry) -> tuple[Worker, ...]:
    worker = state.workers[worker_id]
    job = Job(entry.request, entry.attempt, CLAIMED, entry.prefix, None, None, None, None, True)
    return replaced(state.workers, worker_id, worker._replace(jobs=added(worker.jobs, job)))


def _claim(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """One script: drops stale entries, needs QUEUED, writes PREFILLING with the claimant as holder (rules 1, 12, 14)."""
    redis, worker, mistakes = state.redis, state.workers[worker_id], model.mistakes
    if redis.registry[worker_id].role not in "PM" or worker.mode != SERVING:
        return
    if not worker.heartbeat and "claim_without_heartbeat" not in mistakes:
        return
    unfenced = "no_holder_fence" in mistakes
    for entry in dict.fromkeys(redis.queue):
        index, attempt = entry.request, entry.attempt
        if entry.consumer != INBOX:
            continue
        record = redis.records[index]
        if is_stale(redis.records, index, attempt) or (record and record.status != QUEUED and not unfenced):
            moves.script(
                f"w{worker_id}: claim finds r{index} attempt {attempt} stale: acknowledges and deletes it",
                redis._replace(queue=without(redis.queue, entry)),
            )
        elif not model.owner_visible(redis):
            if "owner_absent_is_refusal" in mistakes:
                moves.script(
                    f"w{worker_id}: claim of r{index} refused (its owner is not seen): deletes the entry",
                    redis._replace(queue=without(redis.queue, entry)),
                )
        elif _has_free_block(worker) and (unfenced or not _knows(worker, index, attempt)):
            queue = added(without(redis.queue, entry), entry._replace(consumer=worker_id))
            moves.script(
                f"w{worker_id}: claims r{index} attempt {attempt}",
                with_record(redis, index, Record(attempt, PREFILLING, worker_id))._replace(queue=queue),
                workers=_with_claim(state, worker_id, entry),
            )


def _knows(worker: Worker, index: int, attempt: int) -> bool:
    return any(job.request == index and job.attempt == attempt for job in worker.jobs)


def _own_pending(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """Rule 4: entries in its own pending list that this process does not know (reply lost, or an ack forgotten)."""
    if "no_own_pending" in model.mistakes:
        return
    redis, worker = state.redis, state.workers[worker_id]
    for entry in dict.fromkeys(redis.queue):
        index, attempt = entry.request, entry.attempt
        if entry.consumer != worker_id or _knows(worker, index, attempt):
            continue
        record = redis.records[index]
        stale = is_stale(redis.records, index, attempt)
        if stale or record is None or record.status != PREFILLING or record.holder != worker_id:
            moves.script(
                f"w{worker_id}: own pending r{index} attempt {attempt} is stale: acknowledges and deletes it",
                redis._replace(queue=without(redis.queue, entry)),
            )
        elif _has_free_block(worker):
            moves.local(
                f"w{worker_id}: finds r{index} attempt {attempt} in its own pending list",
                workers=_with_claim(state, worker_id, entry),
            )


def _read_decode_stream(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """New entries, and own pending ones that this process does not know."""
    redis, worker, mistakes = state.redis, state.workers[worker_id], model.mistakes
    if redis.registry[worker_id].role not in "DM" and "flip_check_then_act" in mistakes:
        return
    for entry in redis.streams[worker_id]:
        index, attempt = entry.request, entry.attempt
        known = any(j.request == index and j.attempt == attempt and j.step in DECODE_STEPS for j in worker.jobs)
        if known or (entry.delivered and "no_own_pending" in mistakes):
            continue
        record = redis.records[index]
        if entry.delivered:
            not_mine = is_stale(redis.records, index, attempt) or record is None or record.holder != worker_id
            if not_mine or (record and record.status != HANDED):
                told = "" if not_mine else ", reports it to the owner"
                moves.script(
                    f"w{worker_id}: own pending decode entry r{index} attempt {attempt} is not runnable: "
                    f"deletes it{told}",
                    with_pull_failure(model, redis, worker_id, entry, index, attempt),
                )
                continue
        entries = added(without(redis.streams[worker_id], entry), entry._replace(delivered=True))
        job = Job(index, attempt, READ, entry.tokens, None, entry.source, entry.block, entry.generation, True)
        moves.script(
            f"w{worker_id}: reads decode entry r{index} attempt {attempt}",
            with_stream(redis, worker_id, entries),
            workers=replaced(state.workers, worker_id, worker._replace(jobs=added(worker.jobs, job))),
        )
        if entry.delivered:
            break


def _end_leases(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """Rule 11: the lender frees a lent block when the record says so, never by a clock."""
    worker = state.workers[worker_id]
    for block_index, block in enumerate(worker.pool):
        if block.use == LENT and _lease_ended(model, state, worker_id, block_index):
            index, attempt, _ = block.content
            pool = with_freed(worker.pool, block_index)
            moves.local(
                f"w{worker_id}: lease of block {block_index} (r{index} attempt {attempt}) ends: frees it",
                workers=replaced(state.workers, worker_id, worker._replace(pool=pool)),
            )


def _lease_ended(model: Model, state: State, worker_id: int, block_index: int) -> bool:
    mistakes, worker, records = model.mistakes, state.workers[worker_id], state.redis.records
    if "lease_by_timer" in mistakes:
        return True  # at any time: the timer ran out while the reader was busy or paused
    index, attempt, _ = worker.pool[block_index].content
    record = records[index]
    if record is None or is_stale(records, index, attempt):
        return True
    reader = record.holder
    decoding = record.status == DECODING
    if reader == worker_id:
        mine = (job for job in worker.jobs if job.request == index and job.attempt == attempt)
        return decoding and not any(job.block == block_index for job in mine)
    if decoding and not mistakes & {"in_place_kept", "in_place_checked"}:
        return True  # it has copied
    return reader is not None and model.sees_gone(state, reader, "lender_acts_at_once")
