"""A worker, part 2: a claimed prefill job, up to its hand-over."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    CLAIMED,
    DECODING,
    FINISHED,
    HANDED,
    LAST_TOKEN,
    LENT,
    OWN,
    PREFILLED,
    PREFILLING,
    QUEUED,
    TOKEN,
    Block,
    DecodeEntry,
    Frame,
    Job,
    Record,
    Redis,
    State,
    added,
    allocated,
    is_stale,
    replaced,
    with_frame,
    with_freed,
    with_record,
    with_stream,
    with_use,
    without,
)


def prefill_job_moves(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    if job.step == CLAIMED:
        _prefill(state, worker_id, job, moves)
    else:
        _hand_over(model, state, worker_id, job, moves)


def _prefill(state: State, worker_id: int, job: Job, moves: Moves) -> None:
    worker = state.workers[worker_id]
    block, pool = allocated(worker.pool, None)
    if block is None:
        return
    tokens = (*job.tokens, 10 * job.attempt + worker_id)
    pool = replaced(pool, block, Block(pool[block].generation, OWN, (job.request, job.attempt, tokens)))
    prefilled = Job(job.request, job.attempt, PREFILLED, tokens, block, None, None, None, True)
    jobs = added(without(worker.jobs, job), prefilled)
    moves.local(
        f"w{worker_id}: prefills r{job.request} attempt {job.attempt} (samples offset {len(job.tokens)}) "
        f"into block {block}",
        workers=replaced(state.workers, worker_id, worker._replace(pool=pool, jobs=jobs)),
    )


def _without_entry(redis: Redis, worker_id: int, job: Job) -> Redis:
    """Acknowledge and delete the prefill entry of this job, if it is still there."""
    for entry in redis.queue:
        if entry.request == job.request and entry.attempt == job.attempt and entry.consumer == worker_id:
            return redis._replace(queue=without(redis.queue, entry))
    return redis


def _hand_over(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """Rules 1, 7, 8: needs PREFILLING and holder = caller; a first token that is the last is a finish instead."""
    redis, worker, mistakes = state.redis, state.workers[worker_id], model.mistakes
    index, attempt, block = job.request, job.attempt, job.block
    assert block is not None
    unfenced = "no_holder_fence" in mistakes
    record = redis.records[index]
    mine = record and not is_stale(redis.records, index, attempt) and (record.holder == worker_id or unfenced)
    wanted = (PREFILLING, HANDED, DECODING, QUEUED) if unfenced else (PREFILLING,)
    deleted = _without_entry(redis, worker_id, job)
    rest = without(worker.jobs, job)
    lent = replaced(state.workers, worker_id, worker._replace(pool=with_use(worker.pool, block, LENT), jobs=rest))
    if not mine or (record and record.status not in wanted):
        # Executed before with its reply lost, or stale: the block counts as lent; the record says when it is free.
        moves.script(
            f"w{worker_id}: hand-over of r{index} attempt {attempt} refused: deletes its entry, "
            f"block {block} left to the lease rule",
            deleted,
            workers=lent,
        )
    elif len(job.tokens) >= model.scenario.num_tokens and "always_hand_over" not in mistakes:
        finished = with_record(deleted, index, Record(attempt, FINISHED, None))
        freed = worker._replace(pool=with_freed(worker.pool, block), jobs=rest)
        moves.script(
            f"w{worker_id}: first token of r{index} is its last: finish instead of hand-over",
            with_frame(finished, Frame(index, attempt, job.tokens, LAST_TOKEN)),
            workers=replaced(state.workers, worker_id, freed),
        )
    elif model.owner_visible(redis) or "owner_absent_is_refusal" in mistakes:
        if not model.owner_visible(redis):
            moves.script(
                f"w{worker_id}: hand-over of r{index} refused (its owner is not seen): deletes its entry",
                deleted,
                workers=lent,
            )
            return
        for target in range(model.num_workers):
            if _accepts(model, state, worker_id, target):
                _hand_over_to(model, state, worker_id, job, target, moves)


def _accepts(model: Model, state: State, worker_id: int, target: int) -> bool:
    """Rule 8: the script asks for accepting, not only for alive and role."""
    there = state.redis.registry[target]
    if there.role not in "DM" or not state.workers[target].heartbeat:
        return False
    if target == worker_id and there.role != "M":
        return False
    return there.accepting or "flip_check_then_act" in model.mistakes


def _hand_over_to(model: Model, state: State, worker_id: int, job: Job, target: int, moves: Moves) -> None:
    """One transaction: first token, DecodeJob, HANDED with the new holder, prefill entry acknowledged and deleted."""
    redis, worker = state.redis, state.workers[worker_id]
    index, attempt, block = job.request, job.attempt, job.block
    assert block is not None
    frame = Frame(index, attempt, job.tokens, TOKEN)
    rest = without(worker.jobs, job)
    two_steps = "hand_over_two_steps" in model.mistakes
    if two_steps and job.good:
        noted = worker._replace(jobs=added(rest, job._replace(good=False)))
        moves.local(
            f"w{worker_id}: publishes offset {len(job.tokens) - 1} of r{index} BEFORE recording the hand-over",
            redis=with_frame(redis, frame),
            workers=replaced(state.workers, worker_id, noted),
        )
        return
    entry = DecodeEntry(index, attempt, job.tokens, worker_id, block, worker.pool[block].generation, False)
    then = _without_entry(redis, worker_id, job)
    then = with_record(then, index, Record(attempt, HANDED, target))
    then = with_stream(then, target, added(then.streams[target], entry))
    lent = worker._replace(pool=with_use(worker.pool, block, LENT), jobs=rest)
    offset = "" if two_steps else f" with offset {len(job.tokens) - 1}"
    moves.script(
        f"w{worker_id}: hands r{index} attempt {attempt} over to w{target}{offset}",
        then if two_steps else with_frame(then, frame),
        workers=replaced(state.workers, worker_id, lent),
    )
