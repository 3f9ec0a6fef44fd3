"""A worker, part 3: a decode job from its entry to DECODING. Stepping and publishing are in `decode_run`."""

from verification.protocol.decode_run import running_moves, unpublished_moves
from verification.protocol.jobs import pull_failure, with_step, without_entry, without_job
from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    COPIED,
    DECODING,
    FREE,
    HALF_COPIED,
    HANDED,
    LENT,
    OWN,
    READ,
    RUNNING,
    Block,
    Job,
    Record,
    State,
    allocated,
    is_stale,
    replaced,
    with_record,
    with_use,
)

IN_PLACE = frozenset({"in_place", "in_place_kept", "in_place_checked"})


def decode_job_moves(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    if job.step == READ:
        if job.source == worker_id:
            _take_over_local(model, state, worker_id, job, moves)
        else:
            _begin_pull(model, state, worker_id, job, moves)
    elif job.step == HALF_COPIED:
        _end_pull(model, state, worker_id, job, moves)
    elif job.step == COPIED:
        _admit(model, state, worker_id, job, moves)
    elif job.step == RUNNING:
        running_moves(model, state, worker_id, job, moves)
    elif not model.scenario.batched:
        unpublished_moves(model, state, worker_id, job, moves)


def _take_over_local(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """Rule 11: a local job takes its block over and releases nothing."""
    worker, block_index = state.workers[worker_id], job.source_block
    assert block_index is not None
    taken = job._replace(step=COPIED, block=block_index)
    if "local_release" in model.mistakes:
        moves.local(
            f"w{worker_id}: local job r{job.request}: reads in place", workers=with_step(state, worker_id, job, taken)
        )
        return
    block = worker.pool[block_index]
    if block.generation == job.source_generation and block.use == LENT:
        pool = with_use(worker.pool, block_index, OWN)
        moves.local(
            f"w{worker_id}: local job r{job.request}: takes over block {block_index}",
            workers=with_step(state, worker_id, job, taken, pool=pool),
        )
    else:
        moves.script(
            f"w{worker_id}: local block of r{job.request} is gone: reports failed pull",
            pull_failure(model, state, worker_id, job),
            workers=without_job(state, worker_id, job),
        )


def _begin_pull(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    worker = state.workers[worker_id]
    assert job.source is not None
    assert job.source_block is not None
    lender = state.workers[job.source]
    there = lender.pool[job.source_block]
    same = there.generation == job.source_generation
    block, pool = allocated(worker.pool, None)
    if model.mistakes & IN_PLACE and lender.alive:
        if not same:
            moves.script(
                f"w{worker_id}: block of r{job.request} was re-used: reports failed pull",
                pull_failure(model, state, worker_id, job),
                workers=without_job(state, worker_id, job),
            )
        else:
            moves.local(
                f"w{worker_id}: reads block {job.source_block} of w{job.source} in place for r{job.request}",
                workers=with_step(state, worker_id, job, job._replace(step=COPIED)),
            )
    elif block is not None:
        moves.local(
            f"w{worker_id}: copies first half of r{job.request} from w{job.source} block {job.source_block}",
            workers=with_step(state, worker_id, job, job._replace(step=HALF_COPIED, block=block, good=same), pool=pool),
        )
    if not lender.alive:
        moves.script(
            f"w{worker_id}: arena of dead w{job.source} is gone: reports failed pull of r{job.request}",
            pull_failure(model, state, worker_id, job),
            workers=without_job(state, worker_id, job),
        )


def _end_pull(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """The generation is read again after the copy."""
    redis, worker, mistakes = state.redis, state.workers[worker_id], model.mistakes
    assert job.source is not None
    assert job.source_block is not None
    assert job.block is not None
    there = state.workers[job.source].pool[job.source_block]
    same = there.generation == job.source_generation
    generation = worker.pool[job.block].generation
    copied = job._replace(step=COPIED)
    if job.good and (same or "check_before_copy" in mistakes):
        content = there.content if same else "GARBAGE"
        pool = replaced(worker.pool, job.block, Block(generation, OWN, content))
        checked = "generation was checked before" if "check_before_copy" in mistakes else "generations unchanged"
        moves.local(
            f"w{worker_id}: copies second half of r{job.request}, {checked}",
            workers=with_step(state, worker_id, job, copied, pool=pool),
        )
    elif "silent_pull_failure" in mistakes:
        moves.script(
            f"w{worker_id}: pull of r{job.request} failed: drops its entry, tells nobody",
            without_entry(redis, worker_id, job),
            workers=without_job(state, worker_id, job),
        )
    else:
        moves.script(
            f"w{worker_id}: pull of r{job.request} attempt {job.attempt} failed: deletes its entry, reports to the owner",
            pull_failure(model, state, worker_id, job),
            workers=without_job(state, worker_id, job),
        )


def _admit(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """Rule 1: needs HANDED (or DECODING by itself: sent again) and holder = caller."""
    redis, mistakes = state.redis, model.mistakes
    index, attempt = job.request, job.attempt
    record = redis.records[index]
    unfenced = "no_holder_fence" in mistakes
    mine = record and not is_stale(redis.records, index, attempt) and (record.holder == worker_id or unfenced)
    waits = mine and not model.owner_visible(redis)
    if waits and "owner_absent_is_refusal" not in mistakes:
        return  # rule 25: an owner that is not seen is no refusal; the janitor or the owner decides
    if not mine or waits or (record and record.status not in (HANDED, DECODING)):
        moves.script(
            f"w{worker_id}: admit of r{index} attempt {attempt} refused: deletes its entry, frees block",
            without_entry(redis, worker_id, job),
            workers=without_job(state, worker_id, job),
        )
        return
    workers = with_step(state, worker_id, job, job._replace(step=RUNNING))
    releases = "in_place" in mistakes or (job.source == worker_id and "local_release" in mistakes)
    if releases and job.source is not None and job.source_block is not None:
        lender = workers[job.source]
        there = lender.pool[job.source_block]
        if there.use == LENT and there.generation == job.source_generation:
            pool = with_use(lender.pool, job.source_block, FREE)
            workers = replaced(workers, job.source, lender._replace(pool=pool))
    moves.script(
        f"w{worker_id}: records r{index} attempt {attempt} DECODING",
        with_record(redis, index, Record(attempt, DECODING, worker_id)),
        workers=workers,
    )
