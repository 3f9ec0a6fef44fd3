"""A worker, part 4: the flip of its role (rule 8). Migration of running decodes is in `decode_steps`."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    DRAINING,
    FLIP_WANTED,
    SERVING,
    SWITCHING,
    Registration,
    State,
    replaced,
)


def flip_moves(model: Model, state: State, worker_id: int, moves: Moves) -> None:
    redis, worker = state.redis, state.workers[worker_id]
    here = redis.registry[worker_id]
    in_two_steps = "flip_check_then_act" in model.mistakes
    new_role = "P" if here.role == "D" else "D"
    switched = Registration(new_role, True, here.epoch + 1)

    def write(label: str, registration: Registration, mode: str) -> None:
        moves.script(
            label,
            redis._replace(registry=replaced(redis.registry, worker_id, registration)),
            workers=replaced(state.workers, worker_id, worker._replace(mode=mode)),
        )

    if worker.mode == DRAINING:
        pending = any(entry.consumer == worker_id for entry in redis.queue)
        if worker.jobs or redis.streams[worker_id] or pending:
            return
        if in_two_steps:
            seen = worker._replace(mode=SWITCHING)
            moves.local(f"w{worker_id}: sees nothing left to drain", workers=replaced(state.workers, worker_id, seen))
        else:
            write(
                f"w{worker_id}: switches to {new_role}, epoch {switched.epoch} (script: stream empty)",
                switched,
                SERVING,
            )
    elif worker.mode == SWITCHING:
        write(f"w{worker_id}: switches to {new_role}, epoch {switched.epoch}", switched, SERVING)
    elif worker.mode == FLIP_WANTED:
        registration = here._replace(accepting=in_two_steps)
        write(f"w{worker_id}: enters DRAINING (script: not accepting)", registration, DRAINING)
    elif worker.mode == SERVING and not here.accepting:
        # Only after a forgotten or half flip.
        write(f"w{worker_id}: publishes again that it accepts", here._replace(accepting=True), SERVING)
