"""One cost model prices everything: how long a step, a prefill and a KV transfer take on a worker.

Batching, admission, placement, the emulated engine and the simulator ask the same functions. Durations are integer
nanoseconds of model time. Forms of the model and their files are in `cost_forms.py` and `profile.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPart:
    """One sequence's share of a prefill: `num_new_tokens` to compute after `num_context_tokens` that are cached or done."""

    num_new_tokens: int
    num_context_tokens: int = 0


class CostModel(Protocol):
    """Prices steps of one kind of worker."""

    @property
    def name(self) -> str:
        """`gpu/model/tpN`, or what the profile calls itself."""

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens for which the pool has room."""

    def prefill_ns(self, parts: Sequence[PrefillPart]) -> int:
        """Return the time of one packed prefill step."""

    def decode_step_ns(self, batch: int, num_context_tokens: int) -> int:
        """Return the time of one decode step of `batch` sequences with this many KV tokens in all."""

    def decode_run_ns(self, batch: int, num_context_tokens: int, num_steps: int) -> int:
        """Return the time of `num_steps` decode steps in a row of the same batch, whose context grows by `batch` each:
        exactly the sum of `decode_step_ns`, in closed form where the model allows."""

    def mixed_step_ns(self, parts: Sequence[PrefillPart], batch: int, num_context_tokens: int) -> int:
        """Return the time of one step that decodes and prefills together (chunked prefill)."""

    def kv_transfer_ns(self, num_tokens: int) -> int:
        """Return the time to bring the KV of this many tokens to another worker."""
