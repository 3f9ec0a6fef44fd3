"""Whether an emulated run may be believed: a machine too busy to keep its own time measures itself and not the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LAG_SHARE = 0.02
"""Mean lag of an event loop above this share of the median step makes a run invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLag:
    """How late one process's event loop was on average during the run, in wall seconds, over so many looks."""

    process: str
    num_looks: int
    mean_lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """`reasons` is empty for a valid run. `median_step_s` is in wall seconds, so before division by the time scale."""

    reasons: tuple[str, ...] = ()
    median_step_s: float | None = None
    lags: tuple[ProcessLag, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.reasons


def judge_lag(lags: Sequence[ProcessLag], *, median_step_s: float) -> Validity:
    """Judge an emulated run by the event loops of all its processes. No look at one of them is as bad as a late one."""
    limit_s = MAX_LAG_SHARE * median_step_s
    reasons = []
    if not median_step_s > 0:
        reasons.append("no worker has said how long its steps take")
    for lag in lags:
        if not lag.num_looks:
            reasons.append(f"the event loop of {lag.process} was not looked at")
        elif median_step_s > 0 and lag.mean_lag_s > limit_s:
            share = lag.mean_lag_s / median_step_s
            reasons.append(
                f"the event loop of {lag.process} lags by {lag.mean_lag_s * 1e3:.2f} ms, {share:.1%} of the median step of "
                f"{median_step_s * 1e3:.1f} ms; at most {MAX_LAG_SHARE:.0%} is allowed: choose a larger --time-scale"
            )
    return Validity(reasons=tuple(reasons), median_step_s=median_step_s, lags=tuple(lags))
