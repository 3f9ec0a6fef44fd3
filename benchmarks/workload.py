"""The requests of a measurement: prompts log-uniform in length, answers uniform, all greedy, nothing ends early."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop: `num_requests` in all, `concurrency` of them at any time until they run out."""

    concurrency: int
    num_requests: int


FULL_LOADS = (Load(concurrency=8, num_requests=24), Load(concurrency=32, num_requests=64))
QUICK_LOADS = (Load(concurrency=8, num_requests=8), Load(concurrency=32, num_requests=32))


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """One prompt and how many tokens its answer has."""

    prompt_token_ids: tuple[int, ...]
    num_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRanges:
    """Inclusive ranges of lengths in tokens."""

    min_prompt_tokens: int = 16
    max_prompt_tokens: int = 1024
    min_output_tokens: int = 16
    max_output_tokens: int = 128


def make_requests(
    num_requests: int, *, seed: int, vocab_size: int, lengths: LengthRanges | None = None
) -> list[BenchRequest]:
    """Draw requests whose ids leave out the first 260 of a vocabulary (bytes and special tokens). Same seed, same list."""
    lengths = lengths or LengthRanges()
    chance = random.Random(seed)
    low, high = math.log(lengths.min_prompt_tokens), math.log(lengths.max_prompt_tokens)
    requests = []
    for _ in range(num_requests):
        num_prompt_tokens = round(math.exp(chance.uniform(low, high)))
        requests.append(
            BenchRequest(
                prompt_token_ids=tuple(chance.randrange(260, vocab_size) for _ in range(num_prompt_tokens)),
                num_output_tokens=chance.randint(lengths.min_output_tokens, lengths.max_output_tokens),
            )
        )
    return requests
