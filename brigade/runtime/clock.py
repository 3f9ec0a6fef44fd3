"""Time, as something that is passed in: services use `SystemClock`, tests one that they move by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two times. Durations and deadlines use the monotonic one; what other hosts compare uses the wall clock."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment of this host; never goes back."""

    def wall_s(self) -> float:
        """Seconds since the epoch; may jump."""


class SystemClock:
    """The host's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()


class ManualClock:
    """A clock that stands still until it is moved. Both times advance together."""

    def __init__(self, *, monotonic_s: float = 0.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        """Move both times forward."""
        assert seconds >= 0
        self._monotonic_s += seconds
        self._wall_s += seconds
