"""How large a run will be, before it is begun: from its specification and a pilot of the first requests."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from brigade.sim.scenario import Scenario
from brigade.sim.simulator import simulate
from brigade.workload import WorkloadSpec

PILOT_REQUESTS = 300
BYTES_PER_REQUEST = 650
"""Measured peak: columns of the result, and the timelines that a summary is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of all runs together, but `memory_bytes` of as many as run at a time."""

    num_requests: int
    duration_s: float
    memory_bytes: int

    def __str__(self) -> str:
        size = (
            f"{self.memory_bytes / 2**20:.0f} MiB"
            if self.memory_bytes < 2**30
            else f"{self.memory_bytes / 2**30:.1f} GiB"
        )
        return f"about {self.num_requests:,} requests, {self.duration_s:.0f} s and {size} of memory"


def num_requests_of(workload: WorkloadSpec) -> int:
    """Return how many requests a workload has, where chance decides the expected number."""
    bounds = [] if workload.num_requests is None else [float(workload.num_requests)]
    if workload.arrivals == "trace":
        end_s = float("inf") if workload.duration_s is None else workload.duration_s * workload.rate_scale
        first_ns = workload.trace[0].arrival_ns or 0
        bounds.append(sum((row.arrival_ns or 0) - first_ns < end_s * 1e9 for row in workload.trace))
    elif workload.phases:
        bounds.append(sum(phase.rate_rps * phase.duration_s for phase in workload.phases))
    elif workload.duration_s is not None and workload.rate_rps:
        bounds.append(workload.rate_rps * workload.duration_s)
    return round(min(bounds))


def estimate(scenario: Scenario, *, num_runs: int, processes: int) -> Estimate:
    """Time a pilot and extrapolate. Queues that grow without bound take longer than that."""
    num = num_requests_of(scenario.workload)
    pilot = replace(
        scenario, workload=replace(scenario.workload, num_requests=min(num, PILOT_REQUESTS)), failures=(), flips=()
    )
    start_s = time.perf_counter()
    simulate(pilot)
    pilot_s = time.perf_counter() - start_s
    per_request_s = pilot_s / max(1, min(num, PILOT_REQUESTS))
    return Estimate(
        num_requests=num * num_runs,
        duration_s=num * num_runs * per_request_s / processes,
        memory_bytes=num * BYTES_PER_REQUEST * min(processes, num_runs),
    )


def available_bytes() -> int:
    """Return the memory that this machine has left."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
