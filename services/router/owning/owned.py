"""One owned request: which tokens were accepted, which frames wait, and what the next frame means for it.

Pure bookkeeping: no bus, no clock of its own. The rules that the numbers name are in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from brigade.core.answer import AcceptedTokens, AnswerSink
from brigade.core.messages import TokensPart
from brigade.core.request import RequestSpec

log = structlog.get_logger()

MAX_HELD_PARTS = 4096
"""Frames held for one request beyond a gap or while its raise is on the way; a full buffer is a gap (rule 15)."""


class Phase(Enum):
    """What the owner does with a frame of this request."""

    SUBMITTING = auto()
    """Entered in the table before its first script is sent; frames are held until the reply (rule 6)."""
    OPEN = auto()
    """Frames of the present attempt are applied."""
    RAISING = auto()
    """Frozen: neither accepts nor drops, holds everything (rule 6)."""
    ENDED = auto()


@dataclass(slots=True, kw_only=True)
class Owned:
    """A request that this router owns.

    `attempt` is the one whose frames count; `highest_attempt` the highest ever used, which only grows (rule 2).
    `finished_by_entry` is the newest frame when its record was first seen FINISHED: past it, no frame of it can come.
    `refused_attempt` is one that a worker gave up before we knew that it stands: it is raised as soon as it counts.
    `num_failures` counts attempts lost to a failure, not those that a forgetful Redis cost.
    """

    spec: RequestSpec
    sink: AnswerSink
    phase: Phase = Phase.SUBMITTING
    attempt: int = 1
    highest_attempt: int = 1
    num_failures: int = 0
    refused_attempt: int = 0
    accepted: list[int] = field(default_factory=list)
    held: list[TokensPart] = field(default_factory=list)
    gap_since_s: float | None = None
    finished_by_entry: str | None = None
    first_token_s: float | None = None
    ended_with: str = ""

    @property
    def request_id(self) -> str:
        return self.spec.request_id

    @property
    def prefix_reason(self) -> str | None:
        """Return why the accepted prefix is already the whole answer, or None."""
        if not self.accepted:
            return None
        return self.spec.stop.finish_reason(len(self.accepted), self.accepted[-1])

    def hold(self, part: TokensPart) -> None:
        """Keep a frame for later."""
        if part not in self.held:
            self.held.append(part)

    @property
    def is_overfull(self) -> bool:
        return len(self.held) > MAX_HELD_PARTS

    def apply(self, part: TokensPart, now_s: float) -> str | None:
        """Apply a frame of the present attempt: accept what is next, hold what lies beyond a gap, drop what is known.

        Returns 'worker' when the worker has ended the answer with it, 'owner' when the sink did (a stop string), else None.
        """
        assert self.phase is Phase.OPEN
        if part.attempt != self.attempt:
            return None
        known = len(self.accepted) - part.offset
        if known < 0:
            self.hold(part)
            self.gap_since_s = now_s if self.gap_since_s is None else self.gap_since_s
            return None
        if known:
            self._compare(part, known)
        new = part.tokens[known:]
        if not new:
            return None  # a finish always brings its last token
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.accepted += [sampled.token_id for sampled in new]
        self.gap_since_s = None
        reason = self.sink.on_tokens(
            AcceptedTokens(
                offset=part.offset + known,
                tokens=new,
                finish_reason=part.finish_reason,
                num_cached_tokens=part.num_cached_tokens,
            )
        )
        if part.finish_reason is not None:
            self.ended_with = part.finish_reason
            return "worker"
        if reason is not None:
            self.ended_with = reason
            return "owner"
        return None

    def take_held(self) -> Iterator[TokensPart]:
        """Give back every held frame, in the order of arrival."""
        held, self.held = self.held, []
        self.gap_since_s = None
        return iter(held)

    def next_attempt(self) -> int:
        """Return the number of an attempt that was never used."""
        self.highest_attempt += 1
        return self.highest_attempt

    def _compare(self, part: TokensPart, known: int) -> None:
        """A different token at an accepted offset is an error of ours: say so loudly, the accepted one stands."""
        again = [sampled.token_id for sampled in part.tokens[:known]]
        accepted = self.accepted[part.offset : part.offset + len(again)]
        if again != accepted:
            log.error(
                "accepted_token_differs",
                request_id=self.request_id,
                attempt=part.attempt,
                offset=part.offset,
                accepted=accepted,
                received=again,
            )
