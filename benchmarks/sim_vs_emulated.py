"""True to ourselves: one seeded workload through the simulator and through an emulated cluster of the real services.

    python -m benchmarks.sim_vs_emulated                       # 6P10D of H100s, Llama-3.1-8B, 800 requests

Both know the same profile, policies, workload and heartbeats (scaled). What differs is what the simulator leaves out: Redis,
HTTP, processes, and chance in who is first at the queue. The first requests are left out of the figures of both: the
simulator's workers learn of each other by their first heartbeats while they already have work.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measures import RESULTS, provenance
from brigade.core.timeline import RequestTimeline
from brigade.report import RunResult, RunSummary, summarise
from brigade.report.requests_csv import read_requests
from brigade.runtime.redis_server import free_port
from brigade.sim.scenario import load_scenario
from brigade.sim.simulator import simulate

GOALS = {"p50": 0.05, "p90": 0.10}
"""Largest relative difference of TTFT and TPOT."""

READY_S = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

SCENARIO = """
name = "sim-vs-emulated"
seed = {seed}
[workload]
rate_rps = {rate_rps}
num_requests = {num_requests}
max_isl = 4000
max_osl = 400
[[workload.mix]]
isl_median = 600
isl_sigma = 0.6
osl_median = 60
osl_sigma = 0.5
[slo]
ttft_s = 0.2
tpot_s = 0.02
[cluster]
profile = "{profile}"
heartbeat_interval_s = {beat_s}
heartbeat_ttl_s = {ttl_s}
[[cluster.workers]]
role = "prefill"
count = {prefill}
[[cluster.workers]]
role = "decode"
count = {decode}
"""


def main() -> int:
    options = parse()
    origin = provenance(("aiohttp", "redis"))
    with tempfile.TemporaryDirectory(prefix="brigade-bench-") as root:
        path = Path(root) / "scenario.toml"
        values = vars(options) | {"beat_s": 0.5 / options.time_scale, "ttl_s": 3.0 / options.time_scale}
        path.write_text(SCENARIO.format(**values), encoding="utf-8")
        rows = [one_run(path, Path(root), options, seed) for seed in range(options.seed, options.seed + options.seeds)]
    record = {"provenance": origin, "goals": GOALS, "options": vars(options), "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sim_vs_emulated.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = as_markdown(record)
    (RESULTS / "sim_vs_emulated.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(row["is_valid"] and row["is_within_goals"] for row in rows) else 1


def one_run(path: Path, folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run both and put their figures side by side."""
    scenario = load_scenario(str(path))
    simulated = list(simulate(scenario, seed=seed).timelines)
    emulated, result, cpu_share = emulate(path, folder, options, seed)
    pairs = summary_of(simulated, options), summary_of(emulated, options)
    row: dict[str, Any] = {"seed": seed, "num_requests": len(emulated), "cpu_share": cpu_share}
    row |= {"is_valid": result.validity.is_valid, "reasons": result.validity.reasons}
    row["num_refused_or_failed"] = result.summary.all.num_refused + result.summary.all.num_failed
    row["prefill_load"], row["decode_load"] = loads(scenario.profiles[options.profile], simulated, options)
    for name in ("ttft", "tpot", "e2e"):
        for figure in ("mean", "p50", "p90", "p99"):
            first, second = (getattr(getattr(pair.all, name), f"{figure}_s") for pair in pairs)
            row[f"{name}_{figure}"] = {
                "simulated_ms": first * 1e3,
                "emulated_ms": second * 1e3,
                "ratio": second / first,
            }
    row["is_within_goals"] = all(
        abs(row[f"{name}_{figure}"]["ratio"] - 1) <= goal for name in ("ttft", "tpot") for figure, goal in GOALS.items()
    )
    return row


def summary_of(timelines: Sequence[RequestTimeline], options: argparse.Namespace) -> RunSummary:
    """Summarise what is left without the warm-up."""
    return summarise([t for t in timelines if t.arrival_ns >= options.warm_up_s * 1e9])


def loads(costs: Any, timelines: Sequence[RequestTimeline], options: argparse.Namespace) -> tuple[float, float]:
    """Return the share of the time in which a prefill worker computes if prompts go one by one, and mean running requests of a
    decode worker as a share of its `max_num_seqs`."""
    from brigade.policies.cost_model import PrefillPart

    span_ns = timelines[-1].arrival_ns - timelines[0].arrival_ns
    prefill_ns = sum(costs.prefill_ns([PrefillPart(num_new_tokens=t.isl)]) for t in timelines)
    decode_ns = sum((t.last_token_ns or 0) - (t.first_token_ns or 0) for t in timelines)
    return prefill_ns / span_ns / options.prefill, decode_ns / span_ns / options.decode / 64


def emulate(
    path: Path, folder: Path, options: argparse.Namespace, seed: int
) -> tuple[list[RequestTimeline], RunResult, float]:
    """Run the scenario on an emulated installation; return its requests, its result and the share of the CPUs that it took."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "brigade.cli",
        "up",
        "--name",
        f"bench-{secrets.token_hex(3)}",
        "--port",
        str(port),
    ]
    command += ["--emulate", options.profile, "--time-scale", str(options.time_scale)]
    command += ["--prefill", str(options.prefill), "--decode", str(options.decode)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        try:
            for line in up.stdout:
                if "Ctrl-C drains" in line:
                    break
            csv, result = folder / f"{seed}.csv", folder / f"{seed}.json"
            bench = [sys.executable, "-m", "brigade.cli", "bench", str(path), "--url", f"http://127.0.0.1:{port}"]
            bench += ["--seed", str(seed), "--csv", str(csv), "--json", str(result)]
            before_s, start_s = _cpu_s(up.pid), time.monotonic()
            usage = os.times()
            done = subprocess.run(bench, check=False, stdout=subprocess.DEVNULL)
            own = os.times()
            bench_s = own.children_user + own.children_system - usage.children_user - usage.children_system
            wall_s = time.monotonic() - start_s
            cpu_share = (_cpu_s(up.pid) - before_s + bench_s) / wall_s / (os.cpu_count() or 1)
            if done.returncode not in (0, 1):
                raise RuntimeError(f"brigade bench ended with {done.returncode}")
        finally:
            up.send_signal(signal.SIGTERM)
    return read_requests(csv), RunResult.load(result), cpu_share


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process and its children so far."""
    total_s = 0.0
    for child in (str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total_s += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return total_s


def as_markdown(record: dict[str, Any]) -> str:
    """A table per seed, with where it was taken."""
    origin, options = record["provenance"], record["options"]
    lines = ["# Simulator and emulated cluster", ""]
    lines += [
        f"{options['prefill']}P{options['decode']}D of {options['profile']}, {options['rate_rps']:g} req/s, N = "
        f"{options['num_requests']}, the first {options['warm_up_s']:g} s left out, time scale {options['time_scale']:g}.",
        "",
        f"- command: `{origin['command']}`, commit {origin['commit']}, taken {origin['taken_at']}",
        f"- {origin['hardware']}, load average {origin['load_average_1min']} before (other work counts)",
        "",
    ]
    for row in record["rows"]:
        lines += [
            f"Seed {row['seed']}: prefill load {row['prefill_load']:.0%}, decode slots {row['decode_load']:.0%}, CPU "
            f"{row['cpu_share']:.0%}, {row['num_refused_or_failed']} refused or failed, "
            + ("valid" if row["is_valid"] else "invalid: " + "; ".join(row["reasons"]))
            + (", within the goals" if row["is_within_goals"] else ", NOT within the goals"),
            "",
            "|  | simulated ms | emulated ms | ratio |",
            "|---|---|---|---|",
        ]
        for name, value in row.items():
            if isinstance(value, dict):
                lines.append(
                    f"| {name.replace('_', ' ')} | {value['simulated_ms']:.2f} | {value['emulated_ms']:.2f} | "
                    f"{value['ratio']:.3f} |"
                )
        lines.append("")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="h100/llama-3.1-8b/tp1")
    parser.add_argument("--prefill", type=int, default=6)
    parser.add_argument("--decode", type=int, default=10)
    parser.add_argument("--rate-rps", type=float, default=200.0)
    parser.add_argument("--num-requests", type=int, default=800)
    parser.add_argument("--time-scale", type=float, default=60.0)
    parser.add_argument("--warm-up-s", type=float, default=0.5, help="model time whose arrivals are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
