"""The simulator against the real engine on this CPU: one seeded workload through both, as one job.

    python -m benchmarks.sim_vs_real [--quick] [--rounds N] [--clock wall|cpu] [--seed N]

A round fits a profile of this machine's engine (`brigade profile`), starts router, balancer, Redis, one prefill and one decode
worker as processes, times the path around the engine on the idle installation, offers the workload with `brigade bench`, and
simulates the same scenario file. Ratios are simulated by real, of the same round; goal: p50 of TTFT and TPOT within 20 %,
median of five rounds. Four simulations of a round say where a gap comes from (`sim_vs_real_parts`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.installation import EngineChoice, Installation
from benchmarks.measures import RESULTS, ROOT, RequestTimes, provenance
from benchmarks.sim_vs_real_parts import figures, path_of, simulated_figures, step_factors
from benchmarks.sse_client import complete
from brigade.core.config import WorkerConfig
from brigade.engine.random_models import RandomSize, make_random_model
from brigade.policies.cost_model import PrefillPart
from brigade.policies.profile import load_profile, read_profile
from brigade.report.requests_csv import read_requests
from brigade.sim.scenario import load_scenario
from brigade.workload import generate

MODEL_SIZE = RandomSize(
    hidden_size=512,
    intermediate_size=1536,
    num_layers=12,
    num_heads=8,
    num_kv_heads=2,
    head_dim=64,
    vocab_size=4096,
    max_model_len_tokens=1024,
    is_tied=True,
    dtype="bfloat16",
)
"""38 M parameters: steps are several milliseconds, so the engine and not the path is what is compared."""
ISL_MEDIAN, OSL_MEDIAN, MAX_ISL, MAX_OSL = 192, 16, 768, 64
LOAD = 0.5
"""Of the busier worker, were every request served alone: sharing of steps only lowers it."""
NUM_BLOCKS, BLOCK_SIZE_TOKENS = 2048, 16
NUM_IDLE_REQUESTS = 15
NUM_OTHER_REQUESTS = 40
"""Offered before and after the run that is compared, from another seed: how long steps are under load here and now."""
FIT_S = 32.0
GOAL = 0.2
FIGURES = ("ttft_p50_ms", "ttft_p90_ms", "tpot_p50_ms", "tpot_p90_ms")
VARIANTS = {
    "profile": "the profile alone, its host overhead included",
    "path": "and the path around the engine as timed on the idle installation",
    "corrected": "and steps times observed / predicted while other requests were served, before and after the run",
    "paced": "and steps times observed / predicted of the run itself (a diagnosis, no prediction)",
}
Row = dict[str, Any]


def fit(model: Path, folder: Path, *, clock: str, budget_s: float) -> Path:
    """Measure the engine as `brigade profile` does, in a process of its own."""
    path = folder / "profile.json"
    command = [sys.executable, "-m", "brigade.cli", "profile", "--model", str(model), "--out", str(path)]
    command += ["--clock", clock, "--budget-s", str(budget_s), "--device", "cpu", "--num-threads", "1"]
    command += ["--max-batch-tokens", str(MAX_ISL), "--max-num-seqs", "16"]
    _run(command)
    return path


def write_scenario(folder: Path, profile: Path, *, num_requests: int, seed: int, load: float) -> tuple[Path, float]:
    """Write the scenario that both sides run; return it and its rate. The profile decides the rate that makes the load."""
    path = folder / "scenario.toml"
    limits = WorkerConfig(model="unused")

    def text(rate_rps: float) -> str:
        return f"""name = "sim-vs-real"
seed = {seed}
[workload]
rate_rps = {rate_rps}
num_requests = {num_requests}
max_isl = {MAX_ISL}
max_osl = {MAX_OSL}
[[workload.mix]]
isl_median = {ISL_MEDIAN}
osl_median = {OSL_MEDIAN}
[cluster]
profile = {json.dumps(str(profile))}
block_size_tokens = {BLOCK_SIZE_TOKENS}
max_batch_tokens = {limits.max_batch_tokens}
max_num_seqs = {limits.max_num_seqs}
max_model_len_tokens = {MODEL_SIZE.max_model_len_tokens}
[[cluster.workers]]
role = "prefill"
kv_tokens = {NUM_BLOCKS * BLOCK_SIZE_TOKENS}
[[cluster.workers]]
role = "decode"
kv_tokens = {NUM_BLOCKS * BLOCK_SIZE_TOKENS}
"""

    path.write_text(text(1.0), encoding="utf-8")
    costs = load_profile(profile)
    requests = list(generate(load_scenario(str(path)).workload, seed))
    prefill_ns = sum(costs.prefill_ns([PrefillPart(num_new_tokens=r.isl)]) + costs.host_step_ns for r in requests)
    decode_ns = sum(
        costs.decode_run_ns(1, r.isl, r.osl - 1) + costs.host_step_ns * (r.osl - 1) for r in requests if r.osl > 1
    )
    rate_rps = round(load * len(requests) / (max(prefill_ns, decode_ns) / 1e9), 3)
    path.write_text(text(rate_rps), encoding="utf-8")
    return path, rate_rps


def offer(install: Installation, scenario: Path, folder: Path, extra: Sequence[str] = ()) -> Row:
    """Run `brigade bench` with the scenario; return its figures. Every request must have been answered."""
    csv = folder / "real.csv"
    command = [sys.executable, "-m", "brigade.cli", "bench", str(scenario)]
    command += ["--url", f"http://127.0.0.1:{install.port}", "--csv", str(csv), *extra]
    _run(command)
    return figures(read_requests(csv))


async def ask_idle(install: Installation) -> list[RequestTimes]:
    """Ask one request after the other; the first warms up and does not count."""
    times = []
    for number in range(NUM_IDLE_REQUESTS + 1):
        prompt = [300 + (31 * number + 7 * place) % 3000 for place in range(ISL_MEDIAN)]
        times.append(
            await complete(install.port, prompt, model=install.model_name, num_tokens=OSL_MEDIAN, counting="token_ids")
        )
    return times[1:]


def run_round(model: Path, folder: Path, options: argparse.Namespace) -> Row:
    """Fit, offer, simulate: one job."""
    load_before = os.getloadavg()[0]
    profile = fit(model, folder, clock=options.clock, budget_s=FIT_S)
    scenario, rate_rps = write_scenario(
        folder, profile, num_requests=40 if options.quick else 160, seed=options.seed, load=LOAD
    )
    other = ("--seed", str(options.seed + 1), "--num-requests", str(NUM_OTHER_REQUESTS))
    real: Row = {}
    engine = EngineChoice(kind="real", num_blocks=NUM_BLOCKS)
    with Installation(folder, model, ("prefill", "decode"), engine) as install:
        idle = asyncio.run(ask_idle(install))
        times_s = [time.monotonic()]
        for extra in (other, (), other):  # the middle one is compared
            offered = offer(install, scenario, folder, extra)
            real = real if extra else offered
            times_s.append(time.monotonic())
        idle += asyncio.run(ask_idle(install))
        notes = install.notes()
    costs = load_profile(profile)
    path = path_of(idle, notes["prefill-0"], notes["decode-1"], costs, ISL_MEDIAN)
    context = ISL_MEDIAN + OSL_MEDIAN // 2
    windows = list(pairwise(times_s))
    alone = step_factors([(r.sent_s, r.token_s[-1]) for r in idle], notes, costs, mean_context_tokens=context)
    around = step_factors([windows[0], windows[2]], notes, costs, mean_context_tokens=context)
    steps = step_factors([windows[1]], notes, costs, mean_context_tokens=context)
    loaded = load_scenario(str(scenario))
    simulated = {
        "profile": simulated_figures(loaded, None, {}),
        "path": simulated_figures(loaded, path, {}),
        "corrected": simulated_figures(loaded, path, {role: step["factor"] for role, step in around.items()}),
        "paced": simulated_figures(loaded, path, {role: step["factor"] for role, step in steps.items()}),
    }
    document = read_profile(profile)
    return {
        "rate_rps": rate_rps,
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "profile": {
            "notes": list(document.notes),
            "host_step_ms": costs.host_step_ns / 1e6,
            "mean_rel_residual": {phase: found["mean_rel"] for phase, found in document.residuals.items()},
        },
        "idle_path_ms": {name: value * 1e3 for name, value in path.as_dict().items()},
        "steps_alone": alone,
        "steps_around": around,
        "steps": steps,
        "real": real,
        "simulated": simulated,
        "ratio": {
            name: {figure: item[figure] / real[figure] for figure in FIGURES} for name, item in simulated.items()
        },
    }


def as_markdown(record: Row) -> str:
    """The verdict first, then every round."""
    origin, rounds = record["provenance"], record["rounds"]
    lines = [
        "# Simulator against the real engine on this CPU",
        "",
        f"- command: `{origin['command']}`, seed {record['seed']}, fit by {record['clock']} time",
        f"- commit {origin['commit']}, taken {origin['taken_at']}, {origin['hardware']}; "
        + ", ".join(f"{package} {number}" for package, number in origin["versions"].items()),
        f"- engine: real, {record['model']}; router, balancer, Redis, 1 prefill and 1 decode worker as processes, one thread "
        "each, over HTTP",
        f"- {rounds[0]['real']['num_requests']} requests a round, Poisson, prompts of {ISL_MEDIAN} and answers of {OSL_MEDIAN} "
        f"tokens in the median (lognormal, σ 0.5), {LOAD:.0%} load; nothing else was asked of the installation",
        "",
        f"Median of {len(rounds)} rounds of simulated / real, and in brackets the median of how far a round is off. "
        f"Goal: both brackets of p50 within {GOAL:.0%}.",
        "",
        "| simulated with | " + " | ".join(FIGURES) + " | goal |",
        "|---|" + "---|" * len(FIGURES) + "---|",
    ]
    for name, what in VARIANTS.items():
        cells = (f"{s['median_ratio']:.2f} ({s['median_off']:.0%})" for s in record["summary"][name].values())
        verdict = "met" if record["goal_met"][name] else "missed"
        lines.append(f"| `{name}`: {what} | " + " | ".join(cells) + f" | {verdict} |")
    lines += ["", f"## Rounds: real ms, and ratios {' / '.join(VARIANTS)}", ""]
    lines += ["| load average | req/s | " + " | ".join(FIGURES) + " |", "|---|---|" + "---|" * len(FIGURES)]
    for item in rounds:
        cells = (
            f"{item['real'][f]:.1f}: " + " / ".join(f"{item['ratio'][name][f]:.2f}" for name in VARIANTS)
            for f in FIGURES
        )
        busy = " → ".join(f"{value:.1f}" for value in item["load_average"])
        lines.append(f"| {busy} | {item['rate_rps']:g} | " + " | ".join(cells) + " |")
    lines += ["", "## Rounds: what the engine and the path did", ""]
    lines += [
        "Busy: share of the run in which the worker's engine stepped. Factor: length of the run's steps by the profile's "
        "prices. Core: CPU time by wall time inside steps. Idle path: to the first token beside the step, hand-over to the "
        "first decode step, between decode steps; gap: between decode steps during the run, median. Alone, around: factor of "
        "prefill and decode for lone requests, and for the other load, before and after.",
        "",
        "| fit: core share | fit: mean error prefill, decode | prefill busy, factor, core | decode busy, factor, core, batch "
        "| alone | around | idle path ms | gap ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in rounds:
        prefill, decode, idle = item["steps"]["prefill"], item["steps"]["decode"], item["idle_path_ms"]
        error = item["profile"]["mean_rel_residual"]
        share = next(note.split()[3] for note in item["profile"]["notes"] if note.startswith("the process got"))
        lines.append(
            f"| {share} | {error['prefill']:.0%}, {error['decode']:.0%} "
            f"| {prefill['busy']:.0%}, {prefill['factor']:.2f}, {prefill['core']:.0%} "
            f"| {decode['busy']:.0%}, {decode['factor']:.2f}, {decode['core']:.0%}, {decode['mean_slices']:.2f} "
            f"| {item['steps_alone']['prefill']['factor']:.2f}, {item['steps_alone']['decode']['factor']:.2f} "
            f"| {item['steps_around']['prefill']['factor']:.2f}, {item['steps_around']['decode']['factor']:.2f} "
            f"| {idle['path_s']:.1f}, {idle['hand_over_s']:.1f}, {idle['host_step_s']:.1f} "
            f"| {decode['host_gap_p50_s'] * 1e3:.1f} |"
        )
    return "\n".join([*lines, ""])


def summarise(rounds: list[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Median ratio, and the median of each round's distance from 1."""
    return {
        name: {
            figure: {
                "median_ratio": median(item["ratio"][name][figure] for item in rounds),
                "median_off": median(abs(item["ratio"][name][figure] - 1) for item in rounds),
            }
            for figure in FIGURES
        }
        for name in VARIANTS
    }


def _run(command: list[str]) -> None:
    """Run to the end. Raises RuntimeError with what it said unless that went well."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BRIGADE_")}
    env = {**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: for a look, not for a claim")
    parser.add_argument("--rounds", type=int, help="jobs to take the median of (default 5)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of the fit (default wall)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    options = parse()
    num_rounds = options.rounds or (1 if options.quick else 5)
    origin = provenance(("torch", "transformers", "aiohttp", "redis"))
    rounds: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="brigade-bench-") as root:
        model = make_random_model("qwen3", Path(root) / "qwen3-38m", size=MODEL_SIZE)
        for number in range(num_rounds):
            rounds.append(run_round(model, Path(tempfile.mkdtemp(dir=root)), options))
            print(f"round {number}", json.dumps(rounds[-1]["ratio"]), file=sys.stderr, flush=True)
    summary = summarise(rounds)
    goal_met = {
        name: all(found[figure]["median_off"] <= GOAL for figure in FIGURES if "p50" in figure)
        for name, found in summary.items()
    }
    record: Row = {
        "provenance": origin,
        "seed": options.seed,
        "clock": options.clock,
        "model": "random Qwen3 of 38 M parameters, bf16",
        "load": LOAD,
        "goal": f"p50 within {GOAL:.0%}, median of {num_rounds}",
        "goal_met": goal_met,
        "summary": summary,
        "rounds": rounds,
    }
    path = RESULTS / ("sim_vs_real-quick.json" if options.quick else "sim_vs_real.json")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(as_markdown(record), encoding="utf-8")
    print(as_markdown(record))


if __name__ == "__main__":
    main()
