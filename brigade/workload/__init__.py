"""Seeded workloads: when requests arrive, how long they are, what they share. Simulator, benchmark and emulation use the same.

No clock and no module state: a workload is a specification and a seed, and gives the same requests on every Python.
"""

from brigade.workload.generate import WorkloadRequest, generate
from brigade.workload.spec import WorkloadSpec, load_workload

__all__ = ["WorkloadRequest", "WorkloadSpec", "generate", "load_workload"]
