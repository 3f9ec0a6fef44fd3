"""Absolute deadlines: a step that woke late does not push the next one back, so lateness never adds up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from brigade.core.timeline import NS_PER_S

_NUM_KEPT = 512


class Pace:
    """Makes pieces of work last as long as they should, `time_scale` times their model time. One thread at a time.

    While work is waiting, the next deadline counts from the last deadline, not from when somebody woke up. A piece that is late
    by more than its own length ends at once; what it is late beyond that is not made up for.
    """

    def __init__(
        self,
        time_scale: float = 1.0,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._time_scale = time_scale
        self._now_ns = now_ns
        self._sleep = sleep
        self._deadline_ns: int | None = None
        self._durations_ns: deque[int] = deque(maxlen=_NUM_KEPT)

    def rest(self) -> None:
        """Nothing is waiting: the next piece of work starts when it comes. May be called by another thread."""
        self._deadline_ns = None

    def start_ns(self) -> int:
        """Return when the next piece of work begins: at the last deadline, or now."""
        deadline_ns = self._deadline_ns
        return self._now_ns() if deadline_ns is None else deadline_ns

    def wait(self, start_ns: int, model_ns: int) -> None:
        """Return when a piece of work of `model_ns` that began at `start_ns` ends."""
        duration_ns = round(model_ns * self._time_scale)
        self._durations_ns.append(duration_ns)
        self._deadline_ns = max(start_ns + duration_ns, self._now_ns())
        while (left_ns := self._deadline_ns - self._now_ns()) > 0:
            self._sleep(left_ns / NS_PER_S)

    def median_s(self) -> float:
        """Return the median of what the last pieces of work should last, in wall seconds; 0 before the first."""
        ordered = sorted(self._durations_ns.copy())
        return ordered[len(ordered) // 2] / NS_PER_S if ordered else 0.0
