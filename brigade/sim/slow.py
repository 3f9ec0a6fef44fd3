"""A worker slower than its profile says."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from brigade.policies.cost_model import CostModel, PrefillPart


class SlowCosts:
    """Implements `CostModel`: every step of `costs` times `factor`, rounded down; KV moves at the usual speed."""

    def __init__(self, costs: CostModel, factor: Fraction) -> None:
        self.name = f"{costs.name} x {factor}"
        self.kv_capacity_tokens = costs.kv_capacity_tokens
        self._costs = costs
        self._up, self._down = factor.numerator, factor.denominator

    def prefill_ns(self, parts: Sequence[PrefillPart]) -> int:
        return self._slow(self._costs.prefill_ns(parts))

    def decode_step_ns(self, batch: int, num_context_tokens: int) -> int:
        return self._slow(self._costs.decode_step_ns(batch, num_context_tokens))

    def decode_run_ns(self, batch: int, num_context_tokens: int, num_steps: int) -> int:
        """Step by step: rounding each step leaves no closed form."""
        last = num_context_tokens + batch * num_steps
        return sum(self.decode_step_ns(batch, context) for context in range(num_context_tokens, last, batch))

    def mixed_step_ns(self, parts: Sequence[PrefillPart], batch: int, num_context_tokens: int) -> int:
        return self._slow(self._costs.mixed_step_ns(parts, batch, num_context_tokens))

    def kv_transfer_ns(self, num_tokens: int) -> int:
        return self._costs.kv_transfer_ns(num_tokens)

    def _slow(self, duration_ns: int) -> int:
        return duration_ns * self._up // self._down


def slowed(costs: CostModel, factor: float) -> CostModel:
    """Return `costs` times `factor`, taken as the decimal that it is written as."""
    return costs if factor == 1 else SlowCosts(costs, Fraction(str(factor)))
