"""The same seed gives the same bytes: in another process, on another Python, with other hash seeds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from brigade.report.requests_csv import write_requests
from brigade.sim.scenario import load_scenario
from brigade.sim.simulator import simulate

SCENARIO = """
[workload]
arrivals = "gamma"
cv = 2.0
rate_rps = 6.0
num_requests = 400
[[workload.mix]]
class = "interactive"
isl_median = 400
osl_median = 60
prefix_groups = 4
prefix_tokens = 512
[[workload.mix]]
share = 0.5
class = "batch"
isl_median = 1500
osl_median = 120
[slo]
ttft_s = 0.5
ttft_unloaded_factor = 5
tpot_s = 0.05
[cluster]
profile = "h100/llama-3.1-8b/tp1"
[[cluster.workers]]
role = "prefill"
count = 2
[[cluster.workers]]
role = "mixed"
profile = "a100/llama-3.1-8b/tp1"
slowdown = 1.5
[[cluster.workers]]
role = "decode"
[[failures]]
worker = "d0"
at_s = 20
back_after_s = 5
[[flips]]
worker = "p1"
role = "decode"
at_s = 30
"""

SHA256 = "1d71caf088392d0aa25c554a3bfd27a916b0c89637abc6d89b198f80ea1cda65"


def written(tmp_path: Path) -> bytes:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    write_requests(tmp_path / "requests.csv", simulate(load_scenario(str(path))).timelines)
    return (tmp_path / "requests.csv").read_bytes()


def test_every_python_writes_these_bytes(tmp_path: Path) -> None:
    """The digest is written down: it changes when the simulator or a policy does, and never with the platform."""
    assert hashlib.sha256(written(tmp_path)).hexdigest() == SHA256


def test_another_process_with_another_hash_seed_writes_the_same(tmp_path: Path) -> None:
    """Nothing depends on the order of sets or on addresses."""
    here = hashlib.sha256(written(tmp_path)).hexdigest()
    code = f"""
import hashlib, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_determinism import written
print(hashlib.sha256(written(pathlib.Path({str(tmp_path)!r}))).hexdigest())
"""
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == here
