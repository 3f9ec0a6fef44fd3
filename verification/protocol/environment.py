"""What happens by itself: late scripts, the end of heartbeats, records that expire, the time after an outage."""

from verification.protocol.clients import client_moves
from verification.protocol.late import executed_late
from verification.protocol.model import Model, Moves
from verification.protocol.state import TERMINAL, State, replaced, without


def environment_moves(model: Model, state: State, moves: Moves) -> None:
    redis, environment = state.redis, state.environment
    for command in environment.late:
        moves.time_passes(
            f"Redis executes late: {command.kind} of r{command.request}",
            state._replace(
                redis=executed_late(model, state, command),
                environment=environment._replace(late=without(environment.late, command)),
            ),
        )
    router = redis.router
    if model.scenario.leases and not state.owner.alive and router.heartbeat:
        gone = redis._replace(router=router._replace(heartbeat=False))
        moves.time_passes("heartbeat of the dead owner ends", state._replace(redis=gone))
    if model.scenario.expiry:
        for index, record in enumerate(redis.records):
            if record is not None and record.status in TERMINAL:
                expired = redis._replace(records=replaced(redis.records, index, None))
                moves.time_passes(f"record of r{index} expires", state._replace(redis=expired))
    if environment.settling:
        _settle(model, state, moves)
    if environment.clients and state.owner.alive:
        client_moves(model, state, moves)


def _settle(model: Model, state: State, moves: Moves) -> None:
    """One TTL after the reconnects: who lives has shown its heartbeat again, but for those that the budget calls slow."""
    owner_unseen = state.owner.alive and model.scenario.leases and not state.redis.router.heartbeat
    if owner_unseen:
        return
    budgets, num_unseen = state.budgets, 0
    for worker in state.workers:
        if worker.alive and not worker.heartbeat:
            after = state._replace(budgets=budgets)
            if not model.can(after, "slow"):
                return
            budgets = model.paid(budgets, "slow")
            num_unseen += 1
    then = state._replace(budgets=budgets, environment=state.environment._replace(settling=False))
    if num_unseen:
        moves.fault("one TTL after the outage a live worker is still not seen (paused)", then)
    else:
        moves.time_passes("one TTL after the outage: all that live are seen again", then)
