"""Times steps of an engine: rounds over all points, so that a busy moment of the machine hits them all a little."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low

from brigade.core.errors import ConfigError
from brigade.core.sampling import SamplingParams
from brigade.core.step import Engine, SampleRequest, Slice
from brigade.profiling.points import Limits, Point

MIN_ROUNDS = 3
MIN_POINTS = 6
"""Fewer cannot tell the coefficients of a form apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure, and the clock that steps are timed with (the budget is wall time in any case)."""

    budget_s: float
    max_rounds: int
    clock_ns: Callable[[], int] = time.perf_counter_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one step takes: the median of `num_rounds` repeats."""

    point: Point
    duration_ns: int
    num_rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """All points that the budget allowed; `num_left_out` are the largest ones that it did not."""

    timings: tuple[Timing, ...]
    num_left_out: int


def limits_of(engine: Engine, *, max_batch_tokens: int, max_num_seqs: int) -> Limits:
    """Return what the engine takes."""
    return Limits(
        max_model_len_tokens=engine.model.max_model_len_tokens,
        pool_tokens=engine.num_blocks * engine.block_size_tokens,
        block_size_tokens=engine.block_size_tokens,
        max_batch_tokens=max_batch_tokens,
        max_num_seqs=max_num_seqs,
    )


def slices_of(engine: Engine, point: Point) -> list[Slice]:
    """Return slices for a point, each on blocks of its own. What the KV before them holds does not matter for time."""
    slices, first_block = [], 0
    shapes = [(part.num_new_tokens, part.num_context_tokens) for part in point.parts]
    shapes += [(1, point.context_tokens)] * point.batch
    for num_new, num_context in shapes:
        num_blocks = -(-(num_new + num_context) // engine.block_size_tokens)
        slices.append(
            Slice(
                token_ids=[(7 * i + 3) % engine.model.vocab_size for i in range(num_new)],
                num_context_tokens=num_context,
                block_table=range(first_block, first_block + num_blocks),
                sample=SampleRequest(params=SamplingParams(temperature=0.0), index=0),
            )
        )
        first_block += num_blocks
    return slices


def time_points(
    engine: Engine, points: Sequence[Point], effort: Effort, on_round: Callable[[int], None] | None = None
) -> Timings:
    """Time every point once a round, after a round to warm up, until the budget or `max_rounds` is used up.

    The warm-up goes from small to large and leaves out what would not fit MIN_ROUNDS times into the budget. ConfigError when
    too few points are left.
    """
    start_s = time.monotonic()
    work = _warm_up(engine, points, effort.budget_s / (MIN_ROUNDS + 1))
    if len(work) < min(MIN_POINTS, len(points)):
        raise ConfigError(
            f"only {len(work)} of {len(points)} steps fit into {effort.budget_s:.0f} s; give a larger --budget-s"
        )
    durations: list[list[int]] = [[] for _ in work]
    num_rounds = 0
    while num_rounds < effort.max_rounds and (
        num_rounds < MIN_ROUNDS or time.monotonic() - start_s < effort.budget_s * num_rounds / (num_rounds + 1)
    ):
        for (_, slices), found in zip(work, durations, strict=True):
            start_ns = effort.clock_ns()
            engine.step(slices)
            found.append(effort.clock_ns() - start_ns)
        num_rounds += 1
        if on_round:
            on_round(num_rounds)
    timings = [
        Timing(point=point, duration_ns=median_low(found), num_rounds=num_rounds)
        for (point, _), found in zip(work, durations, strict=True)
    ]
    return Timings(timings=tuple(timings), num_left_out=len(points) - len(work))


def _warm_up(engine: Engine, points: Sequence[Point], budget_s: float) -> list[tuple[Point, list[Slice]]]:
    work: list[tuple[Point, list[Slice]]] = []
    start_s, last_s, last_size = time.monotonic(), 0.0, 1
    for point in sorted(points, key=_size):
        # Twice the last: a step's price may grow faster than its size.
        expected_s = 2 * last_s * _size(point) / last_size if _size(point) > 2 * last_size else last_s
        if time.monotonic() - start_s + expected_s > budget_s:
            break
        slices = slices_of(engine, point)
        step_start_s = time.monotonic()
        engine.step(slices)
        last_s, last_size = time.monotonic() - step_start_s, _size(point)
        work.append((point, slices))
    return work


def _size(point: Point) -> int:
    """A rough measure of work, for the order only."""
    context = sum(part.num_context_tokens for part in point.parts) + point.batch * point.context_tokens
    return 16 * point.num_new_tokens + context
