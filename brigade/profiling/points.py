"""The steps to measure: which prefills, decodes and mixes tell the most about an engine within its limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from brigade.policies.cost_model import PrefillPart

_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_BATCHES = (1, 2, 4, 8, 16, 32)
_CACHED = (256, 1024, 4096)
_CHUNKS = (16, 64, 256, 1024)
_DECODE_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_CONTEXTS = (32, 256, 1024, 4096, 16384)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine takes: tokens of one sequence, tokens in the pool, new tokens and sequences of one step."""

    max_model_len_tokens: int
    pool_tokens: int
    block_size_tokens: int
    max_batch_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step to time: `parts` to prefill together, and a decode batch of equal contexts (KV tokens before the new one)."""

    parts: tuple[PrefillPart, ...] = ()
    batch: int = 0
    context_tokens: int = 0

    @property
    def num_new_tokens(self) -> int:
        return sum(part.num_new_tokens for part in self.parts) + self.batch

    @property
    def num_sequences(self) -> int:
        return len(self.parts) + self.batch

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest sequence after the step."""
        lengths = [part.num_context_tokens + part.num_new_tokens for part in self.parts]
        return max([*lengths, self.context_tokens + 1 if self.batch else 0])

    def fits(self, limits: Limits) -> bool:
        """Whether the engine can compute it, with own blocks for every sequence."""
        size = limits.block_size_tokens
        lengths = [part.num_context_tokens + part.num_new_tokens for part in self.parts]
        num_blocks = sum(-(-length // size) for length in lengths) + self.batch * -(-(self.context_tokens + 1) // size)
        return (
            self.num_new_tokens <= limits.max_batch_tokens
            and self.num_sequences <= limits.max_num_seqs
            and self.longest_tokens <= limits.max_model_len_tokens
            and num_blocks * size <= limits.pool_tokens
        )


def prefill_points(limits: Limits) -> list[Point]:
    """Lengths alone and in batches, then chunks after cached prefixes."""
    return [point for point in _all_prefills() if point.fits(limits)]


def decode_points(limits: Limits) -> list[Point]:
    """Batch × context. The longest context that the engine has is one of them."""
    longest = limits.max_model_len_tokens - 1
    contexts = [context for context in _CONTEXTS if context < longest]
    if longest > 0:
        contexts.append(longest)
    batches = sorted({batch for batch in _DECODE_BATCHES if batch < limits.max_num_seqs} | {limits.max_num_seqs})
    points = [Point(batch=batch, context_tokens=context) for batch in batches for context in contexts]
    return [point for point in points if point.fits(limits)]


def mixed_points(limits: Limits) -> list[Point]:
    """Steps that do both: for judging the model's rule for them, not for the fit."""
    points = [
        Point(parts=(PrefillPart(num_new_tokens=chunk),), batch=batch, context_tokens=256)
        for chunk in (64, 256, 1024)
        for batch in (2, 8, 32)
    ]
    return [point for point in points if point.fits(limits)]


def _all_prefills() -> Iterator[Point]:
    for length in _LENGTHS:
        for batch in _BATCHES:
            yield Point(parts=(PrefillPart(num_new_tokens=length),) * batch)
    for cached in _CACHED:
        for chunk in _CHUNKS:
            for batch in (1, 4):
                yield Point(parts=(PrefillPart(num_new_tokens=chunk, num_context_tokens=cached),) * batch)
