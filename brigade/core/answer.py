"""The contract between the owner of a request and whoever turns its tokens into an answer for the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from brigade.core.errors import BrigadeError
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedTokens:
    """Consecutive tokens of an answer, each accepted exactly once and in order.

    `offset` is the first one's place in the answer. `finish_reason` is set on the last part when the worker ended the
    answer: 'stop' (a stop token, which is the part's last token) or 'length'. `num_cached_tokens` is the number of
    prompt tokens whose KV came from a prefix cache (first part only).
    """

    offset: int
    tokens: Sequence[Sampled]
    finish_reason: str | None = None
    num_cached_tokens: int = 0


class AnswerSink(Protocol):
    """Receives one request's answer. All calls come from the event loop, in order, and must not block."""

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        """Take the next tokens. Return a finish reason to end the answer here (a stop string), else None."""

    def on_error(self, error: BrigadeError) -> None:
        """The answer ends with an error; nothing follows."""


class Owner(Protocol):
    """Owns requests from acceptance to the last token. Implemented by services.router.ownership."""

    def submit(self, specs: Sequence[RequestSpec], sinks: Sequence[AnswerSink]) -> None:
        """Take ownership of the branches of one client request; sinks[i] receives the answer of specs[i].

        Raises Unavailable when the bus is away or nothing can serve requests now.
        """

    def cancel(self, request_id: str) -> None:
        """The client has left: end the request wherever it is. Unknown and ended requests are ignored."""

    @property
    def num_unfinished(self) -> int: ...

    def is_ready(self) -> str | None:
        """Return None when requests can be served now, else one sentence saying why not."""
