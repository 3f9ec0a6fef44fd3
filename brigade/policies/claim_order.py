"""Which prefill worker claims a new job first. All of them hear of it at once, and none knows how busy the others are now."""

from __future__ import annotations

FIRST_YIELD_S = 0.002
"""What a worker with any work leaves to those without: more than a round trip to Redis, less than any step."""
YIELD_S_PER_TOKEN = 4e-6
"""A fraction of the time that a large model takes for a token. Small models may be done sooner; the wait ends with the work."""


def yield_s(num_left_tokens: int) -> float:
    """Return how long a worker that has so many tokens to prefill leaves a new job to others: the least busy one is first."""
    return FIRST_YIELD_S + YIELD_S_PER_TOKEN * num_left_tokens if num_left_tokens else 0.0
