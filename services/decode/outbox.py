"""Tokens on their way to the routers: gathered by step, sent while the next step runs.

One entry per router and call, finishes in the same script. Never waited for by the step loop; when Redis is away the
outbox fills up to a bound and then the steps stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from brigade.bus.decode_stream import DecodeStream, Finish, StepFrame
from brigade.core.messages import AttemptKey, TokensPart
from brigade.core.step import Sampled
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.decode.sequence import DecodeSequence

PUBLISH_TIMEOUT_S = 5.0


@dataclass(slots=True, kw_only=True)
class _Unsent:
    """Consecutive tokens of one request that have not been sent."""

    sequence: DecodeSequence
    offset: int
    tokens: list[Sampled] = field(default_factory=list)
    finish_reason: str | None = None

    def part(self) -> TokensPart:
        request_id, attempt = self.sequence.key
        return TokensPart(
            request_id=request_id,
            attempt=attempt,
            offset=self.offset,
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason,
        )


class Outbox:
    """`step_bell` is rung when there is room again, `bell` when everything is out or a request's end is recorded."""

    def __init__(self, stream: DecodeStream, *, max_tokens: int, bell: Bell, step_bell: Bell) -> None:
        self._stream = stream
        self._max_tokens = max_tokens
        self._bell = bell
        self._step_bell = step_bell
        self._filled = Bell()
        self._unsent: dict[AttemptKey, _Unsent] = {}
        self._num_tokens = 0
        self._num_sending = 0
        self._ending: set[str] = set()

    @property
    def ending_entry_ids(self) -> frozenset[str]:
        """Decode entries of requests that have ended here and whose end is not recorded yet."""
        return frozenset(self._ending)

    @property
    def is_full(self) -> bool:
        return self._num_tokens + self._num_sending >= self._max_tokens

    @property
    def is_empty(self) -> bool:
        """Whether every token is out and every end recorded."""
        return not self._num_tokens and not self._num_sending

    def put(self, sequence: DecodeSequence, sampled: Sampled, *, offset: int, finish_reason: str | None) -> None:
        """Add a request's next token; call `flush` after the step's last one."""
        unsent = self._unsent.get(sequence.key)
        if unsent is None or unsent.sequence is not sequence:
            unsent = self._unsent[sequence.key] = _Unsent(sequence=sequence, offset=offset)
        unsent.tokens.append(sampled)
        unsent.finish_reason = finish_reason
        if finish_reason is not None:
            self._ending.add(sequence.received.entry_id)
        self._num_tokens += 1

    def flush(self) -> None:
        """Let what was put go out."""
        if self._unsent:
            self._filled.ring()

    async def run(self) -> None:
        """Send until cancelled. What could not be sent is sent again as it was: owners drop what they have."""
        while True:
            seen = self._filled.num_rings
            if not self._unsent:
                await self._filled.wait(after=seen)
                continue
            frames = self._take()
            answers = await until_answered(self._stream.publish, frames, timeout_s=PUBLISH_TIMEOUT_S)
            was_full, self._num_sending = self.is_full, 0
            self._ending.difference_update(finish.entry_id for frame in frames.values() for finish in frame.finishes)
            self._log(frames, answers)
            if answers:
                self._bell.ring()
            if was_full:
                self._step_bell.ring()

    def _take(self) -> dict[str, StepFrame]:
        frames: dict[str, StepFrame] = {}
        for unsent in self._unsent.values():
            received = unsent.sequence.received
            frame = frames.setdefault(received.owner, StepFrame(parts=[], finishes=[]))
            if unsent.finish_reason is None:
                frame.parts.append(unsent.part())
            else:
                frame.finishes.append(Finish(entry_id=received.entry_id, part=unsent.part()))
        self._unsent = {}
        self._num_sending, self._num_tokens = self._num_tokens, 0
        return frames

    def _log(self, frames: dict[str, StepFrame], answers: list[str]) -> None:
        """Say how requests ended. STALE: the attempt was raised or cancelled; its blocks have gone already all the same."""
        finishes = [finish for frame in frames.values() for finish in frame.finishes]
        for finish, answer in zip(finishes, answers, strict=True):
            part = finish.part
            structlog.get_logger().debug(
                "decode_ended",
                request_id=part.request_id,
                attempt=part.attempt,
                answer=answer,
                reason=part.finish_reason,
            )
