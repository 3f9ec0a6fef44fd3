"""The owner: records a request, raises attempts, concludes, and acts on a Redis that has forgotten.

What it does with the frames it reads is in `owner_frames`.
"""

from verification.protocol.model import Model, Moves
from verification.protocol.owner_frames import read_next_frame
from verification.protocol.owner_lease import has_its_lease
from verification.protocol.state import (
    CANCELLED,
    DECODING,
    DONE,
    EARLY,
    ENDED,
    ERROR,
    FAILED,
    FINISHED,
    FORCE,
    HANDED,
    INBOX,
    LAST_TOKEN,
    LEFT,
    NEW,
    OPEN,
    PREFILLING,
    PULL_FAILED,
    QUEUED,
    RAISE,
    REPLY,
    STOPPED,
    STOPPING,
    TERMINAL,
    UNSURE,
    Frame,
    LateCommand,
    Owner,
    PrefillEntry,
    Record,
    Redis,
    Request,
    State,
    Tokens,
    Violation,
    added,
    replaced,
    with_record,
)


def owner_moves(model: Model, state: State, moves: Moves) -> None:
    """Everything that the owner can do next."""
    owner = state.owner
    if not owner.alive:
        return
    if model.scenario.leases and not has_its_lease(model, state, moves):
        return
    if owner.forgot:
        _act_on_forgetful_redis(model, state, moves)
        if "read_before_freeze" not in model.mistakes:
            return
    for index, request in enumerate(owner.requests):
        if request.phase in (NEW, UNSURE):
            _record(model, state, moves, index)
        elif request.phase == OPEN:
            _watch(model, state, moves, index)
        elif request.phase in (RAISE, FORCE, EARLY):
            _raise(model, state, moves, index)
        elif request.phase == REPLY:
            _read_raise_reply(model, state, moves, index)
        elif request.phase == STOPPING:
            _conclude(model, state, moves, index)
    read_next_frame(model, state, moves)


def with_request(owner: Owner, index: int, request: Request) -> Owner:
    return owner._replace(requests=replaced(owner.requests, index, request))


def _act_on_forgetful_redis(model: Model, state: State, moves: Moves) -> None:
    """Rule 2: first act on the new connection, before any frame is read."""
    mistakes = model.mistakes
    records = state.redis.records
    requests = []
    # FORCE may reopen a record that a worker finished from writes which the owner will never read.
    raised_phase = RAISE if mistakes & {"apply_after_loss", "finished_is_final"} else FORCE
    may_be_unsure = model.scenario.lost_reply > 0 and "resubmit_attempt_1" not in mistakes
    for index, request in enumerate(state.owner.requests):
        record = records[index]
        if (request.phase == NEW and may_be_unsure) or request.phase == UNSURE:
            request = request._replace(phase=FORCE, attempt=max(1, request.attempt))
        elif request.phase in (OPEN, RAISE, FORCE, EARLY):
            request = request._replace(phase=raised_phase, early_prefix=())
        elif request.phase == REPLY:
            request = request._replace(phase=raised_phase, attempt=request.target, target=0)
        elif request.phase in ENDED and _is_unfinished(record) and "no_resync" not in mistakes:
            assert record is not None
            ended = Record(max(record.attempt, request.attempt), CANCELLED, None)
            records = replaced(records, index, ended)
        requests.append(request)
    cursor = state.owner.cursor if "keep_cursor" in mistakes else 0
    what_cursor = "keeps its cursor" if cursor else "cursor to 0"
    moves.script(
        f"owner: sees a forgetful Redis: freezes unfinished, finalises ended, {what_cursor}",
        state.redis._replace(records=records),
        owner=Owner(state.owner.alive, cursor, tuple(requests), False),
        may_lose_reply=False,
    )


def _is_unfinished(record: Record | None) -> bool:
    return record is not None and record.status not in TERMINAL


def _record(model: Model, state: State, moves: Moves, index: int) -> None:
    """Rule 3 of a request's life: one script records it and publishes the first PrefillJob."""
    redis, owner, request = state.redis, state.owner, state.owner.requests[index]
    record = redis.records[index]
    attempt = request.attempt + 1 if request.phase == UNSURE else 1
    router = redis.router
    if record is None:
        then = with_record(redis, index, Record(attempt, QUEUED, None))
        then = then._replace(
            queue=added(redis.queue, PrefillEntry(index, attempt, (), INBOX)),
            router=router._replace(homes=replaced(router.homes, index, router.router_id)),
        )
    else:
        then, attempt = redis, record.attempt
    if request.held:
        then = then._replace(frames=request.held + redis.frames)
    unanswered = owner
    if model.scenario.expiry and "resend_as_attempt_1" not in model.mistakes:
        unanswered = with_request(owner, index, request._replace(phase=UNSURE, attempt=attempt))
    moves.script(
        f"owner: records r{index} attempt {attempt} and publishes its PrefillJob",
        then,
        owner=with_request(owner, index, Request(OPEN, attempt, (), (), 0, ())),
        may_lose_reply=not request.held,
        owner_unanswered=unanswered,
        late=LateCommand("record", index, router.router_id, attempt, (), False),
    )


def _watch(model: Model, state: State, moves: Moves, index: int) -> None:
    """Notice a dead holder, a gap that nothing will fill, and a lease that was refused."""
    redis, owner, request = state.redis, state.owner, state.owner.requests[index]
    mistakes = model.mistakes
    record = redis.records[index]
    attempt = request.attempt
    if record and record.attempt == attempt and record.status in (PREFILLING, HANDED, DECODING):
        holder = record.holder
        if holder is None or model.sees_gone(state, holder, "owner_acts_at_once"):
            frozen = request._replace(phase=RAISE, held=())
            what = f"freezes at {len(request.accepted)} tokens, holds its frames"
            if "prefix_before_raise" in mistakes:
                frozen = request._replace(phase=EARLY, held=(), early_prefix=request.accepted)
                what = f"takes prefix {request.accepted} BEFORE the raise"
            who = "pull" if holder is None else f"holder w{holder}"
            moves.local(f"owner: {who} of r{index} is gone; {what}", owner=with_request(owner, index, frozen))
    if "no_gap_rule" not in mistakes and not redis.frames and _has_gap(model, record, request):
        phase = RAISE if "finished_is_final" in mistakes else FORCE
        moves.local(
            f"owner: r{index} has a gap that nothing will fill: freezes",
            owner=with_request(owner, index, request._replace(phase=phase)),
        )
    if record is not None and record.status == CANCELLED and not owner.forgot:
        moves.local(
            f"owner: lease of r{index} refused: ends the stream with an error",
            owner=with_request(owner, index, request._replace(phase=ERROR, held=())),
        )


def _has_gap(model: Model, record: Record | None, request: Request) -> bool:
    """Rule 15, with nothing left to read: frames beyond a gap, or a record that is FINISHED or has expired."""
    if request.held:
        return True
    if record is None:
        return model.scenario.expiry and "expired_is_not_finished" not in model.mistakes
    return record.status == FINISHED and record.attempt == request.attempt


def completes(model: Model, index: int, request: Request, frames: tuple[Frame, ...]) -> bool:
    """Do the frames at hand, with the accepted prefix, make the whole answer?"""
    mine = [f for f in frames if f.request == index and f.attempt == request.attempt and f.kind != PULL_FAILED]
    if not any(frame.kind == LAST_TOKEN for frame in mine):
        return False
    if "finished_is_final" in model.mistakes:
        return True
    missing = set(range(len(request.accepted), model.scenario.num_tokens))
    return missing <= {len(frame.tokens) - 1 for frame in mine}


def _raise(model: Model, state: State, moves: Moves, index: int) -> None:
    """Rule 6: one script compares, writes attempt+1 and publishes its PrefillJob; or the answers that refuse it."""
    redis, owner, request = state.redis, state.owner, state.owner.requests[index]
    mistakes, frames = model.mistakes, redis.frames
    record = redis.records[index]
    attempt, accepted = request.attempt, request.accepted
    prefix = request.early_prefix if request.phase == EARLY else accepted
    from_record = "attempt_from_record" in mistakes
    target = (record.attempt if record else 0) + 1 if from_record else attempt + 1
    finished_here = record is not None and record.attempt == attempt and record.status == FINISHED
    at_hand = "no_gap_rule" in mistakes or completes(model, index, request, frames + request.held)
    blind = "cas_ignores_state" in mistakes
    if finished_here and request.phase != FORCE and not blind and at_hand:
        moves.local(
            f"owner: raise of r{index} refused (FINISHED): applies what it held",
            owner=with_request(owner, index, Request(OPEN, attempt, accepted, (), 0, ())),
            redis=redis._replace(frames=request.held + frames),
        )
    elif record is not None and record.attempt == attempt and record.status in (CANCELLED, FAILED):
        ended = LEFT if record.status == CANCELLED else ERROR
        moves.local(
            f"owner: raise of r{index} refused ({record.status}): ends the stream",
            owner=with_request(owner, index, Request(ended, attempt, accepted, (), 0, ())),
        )
    elif record is not None and record.attempt > target:
        raise Violation("record has an attempt that the owner never made")
    elif len(prefix) >= model.scenario.num_tokens:
        moves.script(
            f"owner: r{index} prefix is already complete: records FINISHED",
            with_record(redis, index, Record(target, FINISHED, None)),
            owner=with_request(owner, index, Request(DONE, target, accepted, (), 0, ())),
        )
    elif 0 < model.scenario.attempt_limit < target and "no_attempt_limit" not in mistakes:
        _give_up(model, state, moves, index)
    else:
        own_retry = record is not None and record.attempt == target and not from_record
        then = redis
        if blind and finished_here:
            then = _published(with_record(redis, index, Record(target, FINISHED, None)), index, target, prefix)
        elif not own_retry:
            then = _published(with_record(redis, index, Record(target, QUEUED, None)), index, target, prefix)
        elif "publish_twice" in mistakes:
            then = _published(redis, index, target, prefix)
        moves.script(
            f"owner: raises r{index} to attempt {target} and publishes PrefillJob(prefix {prefix})",
            then,
            owner=with_request(owner, index, Request(REPLY, attempt, accepted, request.held, target, ())),
            late=LateCommand("raise", index, redis.router.router_id, target, prefix, request.phase == FORCE),
        )


def _published(redis: Redis, index: int, attempt: int, prefix: Tokens) -> Redis:
    return redis._replace(queue=added(redis.queue, PrefillEntry(index, attempt, prefix, INBOX)))


def _give_up(model: Model, state: State, moves: Moves, index: int) -> None:
    """Rule 21: the attempt limit is reached; the record says FAILED before the client's answer ends."""
    redis, request = state.redis, state.owner.requests[index]
    record = redis.records[index]
    highest = max(request.attempt, record.attempt if record else 0)
    then = with_record(redis, index, Record(highest, FAILED, None))
    moves.script(
        f"owner: r{index} reached its attempt limit: records FAILED",
        redis if "fail_without_record" in model.mistakes else then,
        owner=with_request(state.owner, index, Request(ERROR, highest, request.accepted, (), 0, ())),
    )


def _read_raise_reply(model: Model, state: State, moves: Moves, index: int) -> None:
    """Raised: held frames of older attempts are dropped, those of the new one come back to be applied."""
    redis, request = state.redis, state.owner.requests[index]
    kept = tuple(f for f in request.held if f.attempt == request.target or "held_survive" in model.mistakes)
    moves.local(
        f"owner: reply: r{index} is at attempt {request.target}; drops held frames of older attempts",
        owner=with_request(state.owner, index, Request(OPEN, request.target, request.accepted, (), 0, ())),
        redis=redis._replace(frames=kept + redis.frames) if kept else None,
    )


def _conclude(model: Model, state: State, moves: Moves, index: int) -> None:
    """Rule 22: one script ends the request whatever its attempt, and takes an attempt of its own, above any raise sent."""
    redis, request, mistakes = state.redis, state.owner.requests[index], model.mistakes
    record = redis.records[index]
    highest = max(request.attempt, request.target, record.attempt if record else 0)
    final = highest if "stop_keeps_attempt" in mistakes else highest + 1
    then = redis
    if record is None or record.status not in (CANCELLED, FAILED):
        refused = "stop_at_own_attempt" in mistakes and (record is None or record.attempt != request.attempt)
        over = record is not None and record.status == FINISHED and "stop_keeps_attempt" in mistakes
        if not refused and not over and "stop_without_record" not in mistakes:
            then = with_record(redis, index, Record(final, FINISHED, None))
    moves.script(
        f"owner: concludes r{index} at its stop string: FINISHED, hint to the holder",
        then,
        owner=with_request(state.owner, index, Request(STOPPED, final, request.accepted, (), 0, ())),
    )
