"""How late an event loop is: whether this process keeps up with its own work. An emulated run is judged by it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

LOOK_INTERVAL_S = 0.1


class LoopLag:
    """Looks ten times a second: a thread wakes at a fixed time and asks the loop to call back. The lag reaches from the time that
    was meant to the call: late threads and a busy loop both count, as they do for an emulated step."""

    def __init__(self) -> None:
        self.num_looks = 0
        self.total_s = 0.0

    def look(self, meant_s: float, now_s: float) -> None:
        """Count one look, on the clock of `time.monotonic`."""
        self.num_looks += 1
        self.total_s += max(0.0, now_s - meant_s)


@contextmanager
def watch_lag() -> Iterator[LoopLag]:
    """Watch the running event loop while the block runs."""
    lag, loop, ended = LoopLag(), asyncio.get_running_loop(), threading.Event()

    def call_back(meant_s: float) -> None:
        lag.look(meant_s, time.monotonic())

    def watch() -> None:
        meant_s = time.monotonic() + LOOK_INTERVAL_S
        while not ended.wait(max(0.0, meant_s - time.monotonic())):
            try:
                loop.call_soon_threadsafe(call_back, meant_s)
            except RuntimeError:  # the loop was closed before the block ended
                return
            # A process that was stopped for a while has missed looks, not made many late ones.
            meant_s = max(meant_s + LOOK_INTERVAL_S, time.monotonic())

    thread = threading.Thread(target=watch, name="loop-lag", daemon=True)
    thread.start()
    try:
        yield lag
    finally:
        ended.set()
        thread.join()


class LagMetrics(Collector):
    """The two counters of a page of metrics; their ratio is the mean lag."""

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        looks = "looks at how late the event loop is"
        yield CounterMetricFamily("brigade_loop_lag_looks", looks, value=self._lag.num_looks)
        yield CounterMetricFamily("brigade_loop_lag_seconds", "sum of how late it was", value=self._lag.total_s)
