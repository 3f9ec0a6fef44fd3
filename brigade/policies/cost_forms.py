"""The cost model of profiles: a curve over new tokens plus attention for prefill, a curve over context per batch for decode.

The forms of profile files (linear, grid, table; docs/cost-model.md) become the same few curves, so that one class prices them
all. Prices are those of `Engine.step`; what the host adds between steps is `host_step_ns`, and it is the caller's to add.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from brigade.policies.cost_model import CostModel, PrefillPart
from brigade.policies.piecewise import HALF, SHIFT, Curve, fixed

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCosts:
    """Price of one packed prefill step, in fixed point.

    `by_tokens` is over all new tokens of the step. `per_attention` is for one new token that attends to half a token before
    it: a part of n new tokens after c others counts (c + n)^2 - c^2 of them. `per_sequence` is for each part.
    """

    by_tokens: Curve
    per_attention: int = 0
    per_sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRegime:
    """A linear decode step for batches of `min_batch` and more: base + per context token + per sequence, in fixed point."""

    min_batch: int
    base: int
    per_context_token: int
    per_sequence: int


class LinearDecode:
    """Decode steps by regimes of the batch, the first of which begins at batch 1."""

    def __init__(self, regimes: Sequence[DecodeRegime]) -> None:
        assert regimes[0].min_batch == 1
        self._regimes = tuple(regimes)
        self._starts = [regime.min_batch for regime in regimes]

    def curve(self, batch: int) -> Curve:
        """Return the price over all context tokens of a batch."""
        regime = self._regimes[bisect_right(self._starts, batch) - 1]
        return Curve.line(regime.base + regime.per_sequence * batch, regime.per_context_token)


class GridDecode:
    """Decode steps measured at batch × context per sequence. `rows` maps a batch to its curve over context per sequence.

    Between two rows, and beyond the last two, the price at equal context per sequence is linear in the batch; a batch below the
    first row costs what the first row does. Knots are those of both rows.
    """

    def __init__(self, rows: Mapping[int, tuple[Sequence[int], Sequence[int]]]) -> None:
        self._batches = sorted(rows)
        self._knots = {batch: tuple(knots) for batch, (knots, _) in rows.items()}
        self._curves = {batch: Curve.through(knots, values) for batch, (knots, values) in rows.items()}

    def curve(self, batch: int) -> Curve:
        """Return the price over all context tokens of a batch."""
        low, high = self._neighbours(batch)
        contexts = sorted({*self._knots[low], *self._knots[high]})
        values = [self._between(low, high, batch, context) for context in contexts]
        return Curve.through([context * batch for context in contexts], values)

    def _neighbours(self, batch: int) -> tuple[int, int]:
        """Return the two rows to interpolate between or to extrapolate from; twice the same where there is one only."""
        batches = self._batches
        index = bisect_right(batches, batch) - 1
        if index < 0 or len(batches) == 1 or batches[index] == batch:
            index = max(index, 0)
            return batches[index], batches[index]
        index = min(index, len(batches) - 2)
        return batches[index], batches[index + 1]

    def _between(self, low: int, high: int, batch: int, context: int) -> int:
        at_low = self._curves[low].at(context)
        if low == high:
            return at_low
        at_high = self._curves[high].at(context)
        rise = at_high - at_low if batch <= high else max(0, at_high - at_low)
        start, start_batch = (at_low, low) if batch <= high else (at_high, high)
        return start + rise * (batch - start_batch) // (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCosts:
    """Moving KV to another worker: a latency, then bytes at a bandwidth."""

    latency_ns: int
    bytes_per_s: int
    bytes_per_token: int

    def duration_ns(self, num_tokens: int) -> int:
        return self.latency_ns - (-num_tokens * self.bytes_per_token * NS_PER_S // self.bytes_per_s)


class StepCosts:
    """Implements `CostModel`. Keeps the curve of every batch size that was asked for."""

    def __init__(
        self,
        *,
        name: str,
        kv_capacity_tokens: int,
        prefill: PrefillCosts,
        decode: LinearDecode | GridDecode,
        transfer: TransferCosts,
        host_step_ns: int = 0,
        num_gpus: int = 1,
    ) -> None:
        self.name = name
        self.kv_capacity_tokens = kv_capacity_tokens
        self.kv_bytes_per_token = transfer.bytes_per_token
        self.host_step_ns = host_step_ns
        self.num_gpus = num_gpus
        self._prefill = prefill
        self._decode = decode
        self._transfer = transfer
        self._curves: dict[int, Curve] = {}
        # Reading the weights is paid once by a step that does both.
        self._shared = min(prefill.by_tokens.at(0), self._curve(1).at(0))

    def prefill_ns(self, parts: Sequence[PrefillPart]) -> int:
        """Return the time of one packed prefill step."""
        return (self._prefill_fixed(parts) + HALF) >> SHIFT

    def decode_step_ns(self, batch: int, num_context_tokens: int) -> int:
        """Return the time of one decode step of `batch` sequences with this many KV tokens in all."""
        return (self._curve(batch).at(num_context_tokens) + HALF) >> SHIFT

    def decode_run_ns(self, batch: int, num_context_tokens: int, num_steps: int) -> int:
        """Return exactly the sum of `num_steps` decode steps, whose context grows by `batch` each."""
        return self._curve(batch).sum_ns(num_context_tokens, batch, num_steps)

    def mixed_step_ns(self, parts: Sequence[PrefillPart], batch: int, num_context_tokens: int) -> int:
        """Return the time of one step that decodes and prefills: both prices less the smaller fixed cost, once."""
        if not batch:
            return self.prefill_ns(parts)
        decode = self._curve(batch).at(num_context_tokens)
        if not parts:
            return (decode + HALF) >> SHIFT
        prefill = self._prefill_fixed(parts)
        return (max(prefill, decode, prefill + decode - self._shared) + HALF) >> SHIFT

    def kv_transfer_ns(self, num_tokens: int) -> int:
        """Return the time to bring the KV of this many tokens to another worker."""
        return self._transfer.duration_ns(num_tokens)

    def _prefill_fixed(self, parts: Sequence[PrefillPart]) -> int:
        prefill, num_tokens, attention = self._prefill, 0, 0
        for part in parts:
            num_new = part.num_new_tokens
            num_tokens += num_new
            attention += num_new * (num_new + 2 * part.num_context_tokens)  # (c + n)^2 - c^2
        fixed_costs = prefill.per_sequence * len(parts)
        return prefill.by_tokens.at(num_tokens) + prefill.per_attention * attention + fixed_costs

    def _curve(self, batch: int) -> Curve:
        curve = self._curves.get(batch)
        if curve is None:
            assert batch > 0, "a decode step has a sequence"
            curve = self._curves[batch] = self._decode.curve(batch)
        return curve


def num_decode_steps_within(
    model: CostModel, *, batch: int, num_context_tokens: int, max_steps: int, budget_ns: int
) -> int:
    """Return how many decode steps in a row, at most `max_steps`, end within `budget_ns`."""
    if max_steps < 1 or model.decode_step_ns(batch, num_context_tokens) > budget_ns:
        return 0
    if model.decode_run_ns(batch, num_context_tokens, max_steps) <= budget_ns:
        return max_steps
    low, high = 1, max_steps  # low steps fit, high do not
    low_ns = model.decode_step_ns(batch, num_context_tokens)
    guess = budget_ns // max(low_ns, 1)
    while high - low > 1:
        # Steps grow slowly, so the first guess is close; halving bounds the rest.
        middle = guess if low < guess < high else (low + high) // 2
        used_ns = model.decode_run_ns(batch, num_context_tokens, middle)
        if used_ns <= budget_ns:
            low = middle
            step_ns = model.decode_step_ns(batch, num_context_tokens + middle * batch)
            guess = middle + max(1, (budget_ns - used_ns) // max(step_ns, 1))
        else:
            high = middle
            step_ns = model.decode_step_ns(batch, num_context_tokens + middle * batch)
            guess = middle - max(1, -(-(used_ns - budget_ns) // max(step_ns, 1)))
    return low


def line(base_ns: float, per_count_ns: float) -> Curve:
    """Return base + slope * count, both in nanoseconds."""
    return Curve.line(fixed(base_ns), fixed(per_count_ns))
