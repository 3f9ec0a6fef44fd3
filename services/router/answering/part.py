"""What a branch hands on for its client: some text and the tokens behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brigade.core.step import Sampled


@dataclass(slots=True, kw_only=True)
class Part:
    """The next piece of one answer. Not frozen, because one is made for every token; nobody changes it.

    `tokens` and `text_offsets` (where each token's text begins in the answer, in characters) are filled only where the
    client asked for log-probabilities or ids. `stop_reason` is the stop string or the client's own stop id that ended
    the answer.
    """

    text: str
    tokens: Sequence[Sampled] = ()
    text_offsets: Sequence[int] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
