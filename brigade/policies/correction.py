"""Corrects a cost model by what one worker turns out to need: the running ratio of observed to predicted time, by phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from brigade.core.errors import ConfigError

MIN_RATIO = 0.125
MAX_RATIO = 8.0
"""Beyond that it is not the same machine any more, and a single stall must not count for more."""
WEIGHT = 0.1
"""Share of the newest step: ten steps make most of the difference, one outlier little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Factors on predicted times of one worker, 1.0 until something is observed. A new value with every observation."""

    prefill: float = 1.0
    decode: float = 1.0

    def observe_prefill(self, *, predicted_ns: int, observed_ns: int) -> Correction:
        """Return the factors after a prefill step. `predicted_ns` is the model's own price, without correction."""
        return replace(self, prefill=_moved(self.prefill, predicted_ns, observed_ns))

    def observe_decode(self, *, predicted_ns: int, observed_ns: int) -> Correction:
        """Return the factors after a decode step, or a run of them."""
        return replace(self, decode=_moved(self.decode, predicted_ns, observed_ns))

    def prefill_ns(self, predicted_ns: int) -> int:
        """Return the time to expect of a prefill that the model prices so."""
        return round(predicted_ns * self.prefill)

    def decode_ns(self, predicted_ns: int) -> int:
        """Return the time to expect of decode steps that the model prices so."""
        return round(predicted_ns * self.decode)

    def state(self) -> dict[str, float]:
        """Return the factors for JSON."""
        return {"prefill": self.prefill, "decode": self.decode}

    @classmethod
    def of_state(cls, state: Mapping[str, object]) -> Correction:
        """Read back what `state` gave. ConfigError for anything else."""
        if set(state) != {"prefill", "decode"}:
            raise ConfigError(f"a correction has the factors prefill and decode, not {', '.join(map(str, state))}")
        factors = {}
        for phase, value in state.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_RATIO <= value <= MAX_RATIO:
                raise ConfigError(f"the factor {phase} must be from {MIN_RATIO} to {MAX_RATIO}, not {value!r}")
            factors[phase] = float(value)
        return cls(**factors)


def _moved(factor: float, predicted_ns: int, observed_ns: int) -> float:
    """Move a factor towards one ratio. A step that was predicted or observed to take nothing says nothing."""
    if predicted_ns <= 0 or observed_ns <= 0:
        return factor
    ratio = _bounded(observed_ns / predicted_ns)
    # Bounded again: rounding could leave the bounds by the last bit.
    return _bounded(factor + WEIGHT * (ratio - factor))


def _bounded(ratio: float) -> float:
    return min(MAX_RATIO, max(MIN_RATIO, ratio))
