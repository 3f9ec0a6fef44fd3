"""A running decode: learn that it ended, migrate, step, publish, finish."""

from verification.protocol.jobs import pull_failure, with_step, without_entry, without_job
from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    DECODING,
    DRAINING,
    FINISHED,
    HANDED,
    LAST_TOKEN,
    LENT,
    OWN,
    RUNNING,
    TOKEN,
    UNPUBLISHED,
    DecodeEntry,
    Frame,
    Job,
    LateCommand,
    Record,
    Redis,
    State,
    Violation,
    Worker,
    added,
    is_stale,
    replaced,
    with_frame,
    with_record,
    with_stream,
    with_use,
    without,
)


def running_moves(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    redis, mode = state.redis, state.workers[worker_id].mode
    index, attempt = job.request, job.attempt
    stale = is_stale(redis.records, index, attempt)
    mine = _is_mine(model, redis, worker_id, job)
    if stale:  # rule 16
        moves.script(
            f"w{worker_id}: heartbeat reply: r{index} attempt {attempt} has ended: deletes its entry, frees its block",
            without_entry(redis, worker_id, job),
            workers=without_job(state, worker_id, job),
            may_lose_reply=False,
        )
    if mode == DRAINING and job.block is not None:
        record = redis.records[index]
        if mine and record and record.status == DECODING:
            _migrate(model, state, worker_id, job, moves)
        if not mine and not stale:
            moves.script(
                f"w{worker_id}: migration of r{index} was executed before: block left to the lease rule",
                without_entry(redis, worker_id, job),
                workers=_with_lent(state, worker_id, job),
                may_lose_reply=False,
            )
            if "migrate_refused_goes_on" not in model.mistakes:
                return
    if job.good:
        _step(model, state, worker_id, job, moves)
    elif mine:
        # A migration got no answer: any script that changes the holder makes sure that the first one is refused.
        moves.script(
            f"w{worker_id}: migration of r{index} got no answer: gives the request up, reports to the owner",
            pull_failure(model, state, worker_id, job),
            workers=without_job(state, worker_id, job),
        )


def _is_mine(model: Model, redis: Redis, worker_id: int, job: Job) -> bool:
    record = redis.records[job.request]
    if record is None or is_stale(redis.records, job.request, job.attempt):
        return False
    return record.holder == worker_id or "no_holder_fence" in model.mistakes


def _with_lent(state: State, worker_id: int, job: Job) -> tuple[Worker, ...]:
    worker = state.workers[worker_id]
    assert job.block is not None
    lent = worker._replace(pool=with_use(worker.pool, job.block, LENT), jobs=without(worker.jobs, job))
    return replaced(state.workers, worker_id, lent)


def _migrate(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """Rule 9: one transaction hands the running decode to another decode worker."""
    redis = state.redis
    index, attempt = job.request, job.attempt
    assert job.block is not None
    generation = state.workers[worker_id].pool[job.block].generation
    goes_on = "unanswered_migration_goes_on" in model.mistakes
    for target in range(model.num_workers):
        there = redis.registry[target]
        if target == worker_id or there.role not in "DM" or not there.accepting:
            continue
        if not state.workers[target].heartbeat:
            continue
        entry = DecodeEntry(index, attempt, job.tokens, worker_id, job.block, generation, False)
        then = without_entry(redis, worker_id, job)
        then = with_record(then, index, Record(attempt, HANDED, target))
        then = with_stream(then, target, added(then.streams[target], entry))
        moves.script(
            f"w{worker_id}: migrates r{index} attempt {attempt} to w{target}",
            then,
            workers=_with_lent(state, worker_id, job),
            late=LateCommand("migration", index, 0, 0, (), False, entry, target),
            workers_given_up=with_step(state, worker_id, job, job._replace(good=goes_on)),
        )


def _step(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """One decode step; I3 is checked here: the block must still be the one of the handle."""
    worker, mistakes = state.workers[worker_id], model.mistakes
    index, attempt = job.request, job.attempt
    most = model.scenario.num_tokens + ("always_hand_over" in mistakes)
    if len(job.tokens) >= most:
        return
    in_place = job.block is None
    if job.block is not None:
        block = worker.pool[job.block]
    else:
        assert job.source is not None
        assert job.source_block is not None
        block = state.workers[job.source].pool[job.source_block]
    moved_on = in_place and block.generation != job.source_generation
    if moved_on and "in_place_checked" in mistakes:
        moves.script(
            f"w{worker_id}: r{index}: generation changed under the step: discards the token, reports to the owner",
            pull_failure(model, state, worker_id, job),
            workers=without_job(state, worker_id, job),
        )
        return
    content = block.content if isinstance(block.content, tuple) else None
    own_content = content is not None and content[:2] == (index, attempt)
    context_matches = content is not None and job.tokens[: len(content[2])] == content[2]
    not_own = not in_place and block.use != OWN
    if moved_on or not own_content or not context_matches or not_own:
        raise Violation(
            f"I3: w{worker_id} steps r{index} attempt {attempt} on a block that is no longer its own {block}"
        )
    tokens = (*job.tokens, 10 * attempt + worker_id)
    moves.local(
        f"w{worker_id}: steps r{index} attempt {attempt}: offset {len(job.tokens)}",
        workers=with_step(state, worker_id, job, job._replace(step=UNPUBLISHED, tokens=tokens)),
    )


def unpublished_moves(model: Model, state: State, worker_id: int, job: Job, moves: Moves) -> None:
    """Publish a token, or rule 3: last frame, FINISHED and the end of the decode entry in one transaction."""
    redis, mistakes = state.redis, model.mistakes
    index, attempt = job.request, job.attempt
    if len(job.tokens) < model.scenario.num_tokens:
        moves.script(
            f"w{worker_id}: publishes offset {len(job.tokens) - 1} of r{index} attempt {attempt}",
            with_frame(redis, Frame(index, attempt, job.tokens, TOKEN)),
            workers=with_step(state, worker_id, job, job._replace(step=RUNNING)),
        )
        return
    last = Frame(index, attempt, job.tokens, LAST_TOKEN)
    if "finish_two_steps" in mistakes and job.good:
        moves.script(
            f"w{worker_id}: publishes last frame of r{index} (record and entry later)",
            with_frame(redis, last),
            workers=with_step(state, worker_id, job, job._replace(good=False)),
        )
        return
    then = without_entry(redis, worker_id, job)
    record = redis.records[index]
    accepted = _is_mine(model, redis, worker_id, job) and record is not None and record.status == DECODING
    if accepted:
        if "finish_no_state" not in mistakes:
            then = with_record(then, index, Record(attempt, FINISHED, None))
        if "finish_two_steps" not in mistakes:
            then = with_frame(then, last)
    refused = "" if accepted else " refused: deletes its entry"
    moves.script(
        f"w{worker_id}: finish of r{index} attempt {attempt}{refused}",
        then,
        workers=without_job(state, worker_id, job),
    )


def batch_moves(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    """Rule 19: the tokens of one step travel together; the script refuses parts, never the whole."""
    batch = [job for job in state.workers[worker_id].jobs if job.step == UNPUBLISHED]
    if not batch:
        return
    then, workers, refused = state.redis, state.workers, []
    parts: list[Frame] = []
    for job in batch:
        record = then.records[job.request]
        accepted = _is_mine(model, then, worker_id, job) and record is not None and record.status == DECODING
        after = state._replace(workers=workers)
        last = len(job.tokens) >= model.scenario.num_tokens
        if not accepted:
            refused.append(job)
        if accepted and last:
            then = with_record(then, job.request, Record(job.attempt, FINISHED, None))
        if accepted or "refused_part_published" in model.mistakes:
            parts.append(Frame(job.request, job.attempt, job.tokens, LAST_TOKEN if last else TOKEN))
        if last or not accepted:
            then = without_entry(then, worker_id, job)
            workers = without_job(after, worker_id, job)
        else:
            workers = with_step(after, worker_id, job, job._replace(step=RUNNING))
    for part in parts:
        then = with_frame(then, part)
    if refused and "one_refused_refuses_all" in model.mistakes:
        then = state.redis  # nothing is published; the worker believes that all parts are dealt with
        for job in batch:
            if len(job.tokens) >= model.scenario.num_tokens or job in refused:
                then = without_entry(then, worker_id, job)
    shown = ", ".join(f"r{job.request}@{job.attempt} offset {len(job.tokens) - 1}" for job in batch)
    without_parts = "".join(f"; refuses r{job.request}@{job.attempt}" for job in refused)
    moves.script(f"w{worker_id}: publishes one frame [{shown}]{without_parts}", then, workers=workers)
