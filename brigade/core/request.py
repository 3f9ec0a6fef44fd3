"""A request: what was asked, the states it goes through, and the moves that are allowed between them.

A client's request with n > 1 is n requests of this kind, `{id}/0` … `{id}/n-1`, one per branch; they share prompt blocks
through the prefix cache, and the router puts their answers together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from brigade.core.sampling import SamplingParams, StopParams


class RequestState(StrEnum):
    """Where a request stands. Written to its record by scripts only, each move fenced by attempt, state and holder."""

    QUEUED = "QUEUED"
    PREFILLING = "PREFILLING"
    HANDED = "HANDED"
    DECODING = "DECODING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({RequestState.FINISHED, RequestState.FAILED, RequestState.CANCELLED})

ALLOWED_MOVES: dict[RequestState, frozenset[RequestState]] = {
    # any state but a terminal one → QUEUED is the owner's raise to the next attempt; FINISHED → QUEUED is a raise with
    # leave to reopen (the last frames were lost)
    RequestState.QUEUED: TERMINAL_STATES | {RequestState.PREFILLING, RequestState.QUEUED},
    RequestState.PREFILLING: TERMINAL_STATES | {RequestState.HANDED, RequestState.QUEUED},
    RequestState.HANDED: TERMINAL_STATES | {RequestState.DECODING, RequestState.QUEUED},
    RequestState.DECODING: TERMINAL_STATES | {RequestState.HANDED, RequestState.QUEUED},
    RequestState.FINISHED: frozenset({RequestState.QUEUED}),
    RequestState.FAILED: frozenset(),
    RequestState.CANCELLED: frozenset(),
}

PRIORITY_CLASSES = ("system", "interactive", "standard", "batch")
"""Priority classes, best first. The order is the order of preference."""

DEFAULT_CLASS = "standard"

BAND_EDGES_TOKENS = (64, 256, 1024, 4096)
"""Upper edges (exclusive) of the fixed length bands; the last band is open. Bands name streams and never change."""


def length_band(num_prompt_tokens: int) -> int:
    """Return the fixed length band of a prompt: 0 … len(BAND_EDGES_TOKENS)."""
    return sum(num_prompt_tokens >= edge for edge in BAND_EDGES_TOKENS)


NUM_BANDS = len(BAND_EDGES_TOKENS) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """What one request (one branch) asks for: complete, validated, unchanged over all attempts.

    `arrival_s` is wall-clock time (seconds since the epoch) at which the router received it. `priority` orders requests
    inside a class, lower first. `cache_salt` separates prefix caches of tenants.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    stop: StopParams
    priority_class: str = DEFAULT_CLASS
    priority: int = 0
    arrival_s: float = 0.0
    cache_salt: str = ""

    @property
    def band(self) -> int:
        return length_band(len(self.prompt_token_ids))

    @property
    def num_total_tokens(self) -> int:
        """Prompt and the longest answer: what a decode worker reserves room for."""
        return len(self.prompt_token_ids) + self.stop.max_tokens
