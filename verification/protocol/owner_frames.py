"""The owner reads the next frame: accept, hold or drop."""

from verification.protocol.model import Model, Moves
from verification.protocol.state import (
    DONE,
    ENDED,
    FORCE,
    LAST_TOKEN,
    NEW,
    PULL_FAILED,
    RAISE,
    REPLY,
    STOPPING,
    UNSURE,
    Frame,
    Request,
    State,
    Violation,
    replaced,
)

_READS_WHILE_HOLDING = frozenset({"drop_while_raising", "held_survive", "keep_cursor"})


def read_next_frame(model: Model, state: State, moves: Moves) -> None:
    """At most one step: what the owner does with the first unread frame."""
    redis, owner, mistakes = state.redis, state.owner, model.mistakes
    first = redis.head - len(redis.frames)
    if model.scenario.num_requests == 1 and not mistakes & _READS_WHILE_HOLDING:
        # With one request, holding a frame is the same as not reading it.
        phase = owner.requests[0].phase
        if phase == REPLY or (phase in (RAISE, FORCE, NEW, UNSURE) and "register_late" not in mistakes):
            return
    if not redis.frames or (owner.forgot and "read_before_freeze" not in mistakes):
        return
    frame = redis.frames[0]
    if owner.cursor > first and "keep_cursor" in mistakes:
        moves.local(
            f"owner: frame {_shown(frame)} lies before its cursor: never read",
            redis=redis._replace(frames=redis.frames[1:]),
        )
    else:
        _apply(model, state, moves, frame)


def _shown(frame: Frame) -> str:
    return f"r{frame.request}@{frame.attempt} {frame.tokens} ({frame.kind})"


def _apply(model: Model, state: State, moves: Moves, frame: Frame) -> None:
    """The rules of rule 6 and I1, I2: freeze and hold, fence by attempt, then by offset."""
    redis, owner, mistakes = state.redis, state.owner, model.mistakes
    cursor = max(owner.cursor, redis.head - len(redis.frames) + 1) if "keep_cursor" in mistakes else 0
    index = frame.request
    request = owner.requests[index]
    phase, attempt, accepted, held = request.phase, request.attempt, request.accepted, request.held

    def becomes(label: str, then: Request, again: tuple[Frame, ...] = ()) -> None:
        """The frame is consumed; held frames come back in front of the stream."""
        moves.local(
            label,
            owner=owner._replace(cursor=cursor, requests=replaced(owner.requests, index, then)),
            redis=redis._replace(frames=again + redis.frames[1:]),
        )

    def holds(label: str) -> None:
        becomes(label, request._replace(held=(*held, frame)) if frame not in held else request)

    if phase in (NEW, UNSURE) and "register_late" not in mistakes:
        return holds(f"owner: holds frame {_shown(frame)}, its record is not yet confirmed")
    if phase in ENDED or phase in (NEW, UNSURE, STOPPING):
        return becomes(f"owner: drops frame {_shown(frame)}", request)
    if phase in (RAISE, FORCE, REPLY):
        if "drop_while_raising" in mistakes:
            return becomes(f"owner: raising r{index}: drops frame {_shown(frame)}", request)
        return holds(f"owner: raising r{index}: holds frame {_shown(frame)}")
    offset = len(frame.tokens) - 1
    survives = "held_survive" in mistakes and frame.attempt < attempt and offset == len(accepted)
    if frame.attempt != attempt and not survives and "no_attempt_fence" not in mistakes:
        return becomes(f"owner: drops frame {_shown(frame)} of another attempt", request)
    if frame.kind == PULL_FAILED:
        return becomes(f"owner: r{index} pull failed: freezes", Request(RAISE, attempt, accepted, (), 0, ()))
    if offset < len(accepted):
        return becomes(f"owner: drops old offset {offset} of r{index}", request)
    if offset > len(accepted):
        return becomes(
            f"owner: holds frame {_shown(frame)} (expects offset {len(accepted)})",
            request._replace(held=(*held, frame)),
        )
    _check_acceptable(model, request, frame)
    if frame.kind == LAST_TOKEN:
        return becomes(
            f"owner: accepts last token, offset {offset} of r{index}; client has {len(frame.tokens)}",
            Request(DONE, attempt, frame.tokens, (), 0, ()),
        )
    return becomes(
        f"owner: accepts offset {offset} of r{index} ({frame.tokens[-1]}) and sends it to the client",
        request._replace(accepted=frame.tokens, held=()),
        held,
    )


def _check_acceptable(model: Model, request: Request, frame: Frame) -> None:
    """I1 and I2 at the moment of acceptance."""
    offset, token = len(frame.tokens) - 1, frame.tokens[-1]
    if offset >= model.scenario.num_tokens:
        raise Violation(f"I1: offset {offset} of r{frame.request} lies beyond the last token")
    if frame.tokens[:-1] != request.accepted:
        raise Violation(
            f"I2: token {token} at offset {offset} of r{frame.request} was computed from {frame.tokens[:-1]}, "
            f"accepted is {request.accepted}"
        )
    if frame.attempt < request.attempt:
        raise Violation(f"I1: token of attempt {frame.attempt} accepted after the freeze for {request.attempt}")
