"""One client whose request has several branches (rule 26): independent requests, one answer."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    ANSWERED,
    ANSWERED_WITH_ERROR,
    CANCELLED,
    DONE,
    ENDED,
    ERROR,
    GONE,
    LEFT,
    TERMINAL,
    WAITING,
    Owner,
    Record,
    Redis,
    Request,
    State,
    with_record,
)


def client_moves(model: Model, state: State, moves: Moves) -> None:
    """The end of the answer: all branches ended, one failed, or the client went away."""
    owner, mistakes = state.owner, model.mistakes
    if state.environment.clients[0] != WAITING or owner.forgot:
        return
    phases = [request.phase for request in owner.requests]
    all_ended = all(phase in ENDED for phase in phases)
    if ERROR in phases:
        redis, then = _ended_together(state, every="failed_branch_leaves_siblings" not in mistakes)
        moves.script(
            "owner: a branch failed: its siblings CANCELLED, the answer ends with an error",
            redis,
            owner=then,
            environment=state.environment._replace(clients=(ANSWERED_WITH_ERROR,)),
        )
    elif all_ended:
        moves.local(
            "owner: all branches ended: the answer ends",
            environment=state.environment._replace(clients=(ANSWERED,)),
        )
    elif DONE in phases and "answer_ends_with_first_branch" in mistakes:
        _, then = _ended_together(state, every=False)
        moves.local(
            "owner: the first branch ended: the answer ends, the others are forgotten",
            owner=then,
            environment=state.environment._replace(clients=(ANSWERED,)),
        )
    if not all_ended and model.can(state, "cancel"):
        redis, then = _ended_together(state, every="cancel_first_branch_only" not in mistakes, first=True)
        environment = state.environment._replace(clients=(GONE,))
        budgets = model.paid(state.budgets, "cancel")
        moves.fault(
            "the client leaves: owner records CANCELLED for its branches",
            state._replace(redis=redis, owner=then, environment=environment, budgets=budgets),
        )


def _ended_together(state: State, *, every: bool, first: bool = False) -> tuple[Redis, Owner]:
    """One script cancels the branches that have not ended (missing records too); the owner drops all of them."""
    redis, requests = state.redis, []
    for index, request in enumerate(state.owner.requests):
        record = redis.records[index]
        if (every or (first and index == 0)) and (record is None or record.status not in TERMINAL):
            attempt, holder = (1, None) if record is None else (record.attempt, record.holder)
            redis = with_record(redis, index, Record(attempt, CANCELLED, holder))
        if request.phase not in ENDED:
            highest = max(request.attempt, request.target, record.attempt if record else 0)
            request = Request(LEFT, highest, request.accepted, (), 0, ())
        requests.append(request)
    return redis, state.owner._replace(requests=tuple(requests))
