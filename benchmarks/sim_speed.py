"""Requests per second, wall and CPU, of our simulators and of peers, in turns in one run.

python -m benchmarks.sim_speed [--write] [--rounds N] [--no-dynamo] [--simdistserve CHECKOUT] [--scale N,N,...]

NVIDIA Dynamo's offline replay (ai-dynamo-runtime) is installed from the package index into an environment of its own under a
temporary folder. simdistserve is on no package index: give a checkout of LLMServe/DistServe. `--write` stores
benchmarks/results/sim_speed.{json,md}.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measures import RESULTS, ROOT, provenance
from benchmarks.peer_curves import GOLDEN, TRACES, draw_workload, read_lengths
from brigade.sim.peers import PEERS, PeerRun, PeerWorkload, Placement
from brigade.sim.scenario import load_scenario
from brigade.sim.simulator import simulate

AZURE = TRACES / "azure2023_conv.csv.gz"
AZURE_SETTING = "Azure conversation, 2P2D"
# What simdistserve did on these settings on a quiet machine of two CPUs, where no checkout is given to measure it.
QUOTED_SIMDISTSERVE_RPS = 609
DYNAMO_BLOCK_TOKENS = 512
MEASURED_REQUESTS = 6000

LIVE_SCENARIO = """
name = "{name}"
[workload]
arrivals = "trace"
trace = "{trace}"
[cluster]
max_num_seqs = 256
max_batch_tokens = 16384
[[cluster.workers]]
role = "prefill"
profile = "{prefill}"
count = {count}
[[cluster.workers]]
role = "decode"
profile = "{decode}"
count = {count}
"""


@dataclass(kw_only=True)
class Row:
    """One simulator on one setting. `measure` runs it and returns wall and CPU seconds of one run."""

    setting: str
    simulator: str
    num_requests: int
    measure: Callable[[], tuple[float, float]]
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float:
        return self.num_requests / median(self.wall_s)

    @property
    def requests_per_cpu_s(self) -> float:
        return self.num_requests / median(self.cpu_s)

    def as_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "simulator": self.simulator,
            "num_requests": self.num_requests,
            "requests_per_s": self.requests_per_s,
            "requests_per_cpu_s": self.requests_per_cpu_s,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One of the runs that simdistserve's golden files are of."""

    tag: str
    peer: str
    placement: Placement
    workload: PeerWorkload


def golden_settings() -> list[Setting]:
    settings = []
    for run in json.loads((GOLDEN / "simdistserve_summary.json").read_text(encoding="utf-8")):
        placement = Placement(
            model=run["model"],
            **dict(zip(("tp_prefill", "pp_prefill", "tp_decode", "pp_decode"), run["tp_pp"], strict=True)),
        )
        workload = read_workload(GOLDEN / f"simdistserve_{run['tag']}.csv.gz")
        settings.append(Setting(tag=run["tag"], peer=run["backend"], placement=placement, workload=workload))
    return settings


def read_workload(path: Path) -> PeerWorkload:
    """Read arrivals and lengths of a trace or golden file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return PeerWorkload(
        arrival_ms=[float(row["arrival_s"]) * 1000 for row in rows],
        input_tokens=[int(row["input_tokens"]) for row in rows],
        output_tokens=[int(row["output_tokens"]) for row in rows],
    )


def peer_mode_row(setting: str, peer: str, placement: Placement, workload: PeerWorkload) -> Row:
    def measure() -> tuple[float, float]:
        # A run of a few milliseconds says little alone.
        num_runs = max(1, MEASURED_REQUESTS // len(workload))
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(num_runs):
            PEERS[peer](placement, workload)
        return (time.perf_counter() - begin_s) / num_runs, (time.process_time() - begin_cpu_s) / num_runs

    return Row(setting=setting, simulator="ours, peer mode", num_requests=len(workload), measure=measure)


def live_row(setting: str, workload: PeerWorkload, folder: Path, *, prefill: str, decode: str, count: int) -> Row:
    """Our simulator with the live policies on the same requests."""
    name = "".join(letter if letter.isalnum() else "-" for letter in setting)
    trace, path = folder / f"{name}.csv", folder / f"{name}.toml"
    with trace.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arrival_s", "input_tokens", "output_tokens"))
        columns = zip(workload.arrival_ms, workload.input_tokens, workload.output_tokens, strict=True)
        writer.writerows((f"{arrival_ms / 1000:.9f}", *lengths) for arrival_ms, *lengths in columns)
    path.write_text(
        LIVE_SCENARIO.format(name=name, trace=trace, prefill=prefill, decode=decode, count=count), encoding="utf-8"
    )
    scenario = load_scenario(str(path))

    def measure() -> tuple[float, float]:
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        found = simulate(scenario, seed=0)
        spent = (time.perf_counter() - begin_s, time.process_time() - begin_cpu_s)
        assert len(found.timelines) == len(workload)
        assert not found.num_unfinished
        return spent

    return Row(setting=setting, simulator="ours, live policies", num_requests=len(workload), measure=measure)


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Install packages into an environment of their own and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def dynamo_row(python: Path, workload: PeerWorkload, folder: Path) -> Row:
    """Dynamo's replay with its default timing; every prompt is its own, so that no prefix is shared."""
    trace = folder / "azure.jsonl"
    next_id = 0
    with trace.open("w", encoding="utf-8") as file:
        for arrival_ms, num_input, num_output in zip(
            workload.arrival_ms, workload.input_tokens, workload.output_tokens, strict=True
        ):
            end_id = next_id - (-num_input // DYNAMO_BLOCK_TOKENS)
            row = {"timestamp": arrival_ms, "input_length": num_input, "output_length": num_output}
            file.write(json.dumps(row | {"hash_ids": list(range(next_id, end_id))}) + "\n")
            next_id = end_id

    def measure() -> tuple[float, float]:
        found = _run_json([str(python), str(ROOT / "benchmarks" / "peer_dynamo.py"), str(trace), "2", "2"])
        assert found["completed"] == len(workload)
        return found["wall_s"], found["cpu_s"]

    return Row(setting=AZURE_SETTING, simulator="Dynamo offline replay", num_requests=len(workload), measure=measure)


def simdistserve_rows(python: Path, checkout: Path, setting: Setting, folder: Path) -> list[Row]:
    """simdistserve's event loop alone, and its whole run. Each run is also held to our peer mode's result."""
    requests = folder / f"{setting.tag}.json"
    columns = zip(
        setting.workload.arrival_ms, setting.workload.input_tokens, setting.workload.output_tokens, strict=True
    )
    requests.write_text(
        json.dumps(
            [
                {"start_time": arrival_ms / 1000, "prompt_len": num_input, "output_len": num_output}
                for arrival_ms, num_input, num_output in columns
            ]
        ),
        encoding="utf-8",
    )
    placement = setting.placement
    command = [str(python), str(ROOT / "benchmarks" / "peer_simdistserve.py"), str(checkout), str(requests)]
    command += ["--backend", setting.peer, "--model", placement.model, "--N", str(len(setting.workload))]
    command += ["--tp-prefill", str(placement.tp_prefill), "--pp-prefill", str(placement.pp_prefill)]
    if placement.tp_decode:
        command += ["--tp-decode", str(placement.tp_decode), "--pp-decode", str(placement.pp_decode)]
    ours = PEERS[setting.peer](placement, setting.workload)
    whole_runs_s: list[tuple[float, float]] = []

    def measure_loop() -> tuple[float, float]:
        found = _run_json(command)
        _hold_to(ours, found)
        whole_runs_s.append(tuple(found["whole_s"]))
        wall_s, cpu_s = found["loop_s"]
        return wall_s, cpu_s

    common = {"setting": setting.tag, "num_requests": len(setting.workload)}
    return [
        Row(simulator="simdistserve, event loop alone", measure=measure_loop, **common),
        # The same run, read a second time.
        Row(simulator="simdistserve, whole run", measure=lambda: whole_runs_s[-1], **common),
    ]


def _hold_to(ours: PeerRun, found: dict[str, Any]) -> None:
    for name in ("ttft_ms", "total_ms"):
        gap_ms = max(abs(one - other) for one, other in zip(getattr(ours, name), found[name], strict=True))
        if gap_ms > 0.01:
            raise SystemExit(f"simdistserve and the peer mode differ by {gap_ms} ms in {name}")


def _run_json(command: Sequence[str]) -> dict[str, Any]:
    environment = {**os.environ, "DYN_LOG": "error", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def scale_point(num_requests: int) -> dict[str, float]:
    """Run the peer mode on `num_requests` in this process, which must be fresh: its memory is its peak."""
    lengths = read_lengths("len_sharegpt_distserve_surrogate")
    placement = Placement(model="facebook/opt-13b", tp_prefill=2, tp_decode=1, pp_decode=1)
    # Below saturation, so that the queue does not grow with the number of requests.
    workload = draw_workload(
        lengths * -(-num_requests // len(lengths)), rate_rps=4.5, num_requests=num_requests, seed=0
    )
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    PEERS["distserve"](placement, workload)
    wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "num_requests": num_requests,
        "wall_s": wall_s,
        "requests_per_s": num_requests / wall_s,
        "requests_per_cpu_s": num_requests / cpu_s,
        "workload_mib": before_mib,
        "peak_mib": peak_mib,
    }


def scale_points(sizes: Sequence[int]) -> list[dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    points = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            points.append(pool.submit(scale_point, size).result())
    return points


def make_rows(args: argparse.Namespace, folder: Path) -> list[Row]:
    settings = golden_settings()
    python = None
    packages = [] if args.no_dynamo else ["ai-dynamo-runtime"]
    packages += ["simpy", "numpy", "pandas"] if args.simdistserve else []
    if packages:
        print("installing " + ", ".join(packages), file=sys.stderr, flush=True)
        python = make_environment(folder / "peers", packages)
    rows = []
    for setting in settings:
        rows.append(peer_mode_row(setting.tag, setting.peer, setting.placement, setting.workload))
        placement = setting.placement
        if setting.peer == "distserve" and placement.pp_decode == 1:
            model = "a100/" + placement.model.split("/")[1]
            prefill, decode = f"{model}/tp{placement.tp_prefill}", f"{model}/tp{placement.tp_decode}"
            rows.append(live_row(setting.tag, setting.workload, folder, prefill=prefill, decode=decode, count=1))
        if args.simdistserve and python:
            rows += simdistserve_rows(python, args.simdistserve, setting, folder)
    azure = read_workload(AZURE)
    split = Placement(model="facebook/opt-13b", tp_prefill=1, num_prefill=2, tp_decode=1, pp_decode=1, num_decode=2)
    rows.append(peer_mode_row(AZURE_SETTING, "distserve", split, azure))
    llama = "h100/llama-3.1-8b/tp1"
    rows.append(live_row(AZURE_SETTING, azure, folder, prefill=llama, decode=llama, count=2))
    if not args.no_dynamo and python:
        rows.append(dynamo_row(python, azure, folder))
    return rows


def as_markdown(document: dict[str, Any]) -> str:
    origin = document["origin"]
    lines = [
        "# Requests per wall second of simulators",
        "",
        f"- command: `{origin['command']}`, commit {origin['commit']}, taken {origin['taken_at']}",
        f"- {origin['hardware']}; load average {origin['load_average_1min']} (other work on the machine counts)",
        f"- medians of {document['rounds']} rounds; in a round every simulator runs once, in turns",
        f"- peers: {document['peers']}",
        "",
        "| setting | simulator | requests | requests / wall second | slowest to fastest round | requests / CPU second |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        slowest, fastest = (row["num_requests"] / pick(row["wall_s"]) for pick in (max, min))
        lines.append(
            f"| {row['setting']} | {row['simulator']} | {row['num_requests']:,} "
            f"| {row['requests_per_s']:,.0f} | {slowest:,.0f} to {fastest:,.0f} | {row['requests_per_cpu_s']:,.0f} |"
        )
    lines += [
        "",
        "Peer mode, OPT-13B ShareGPT 1P1D at 1.5 req/s per GPU, each size in a fresh process:",
        "",
        "| requests | wall s | requests / wall second | requests / CPU second | memory before, MiB | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for point in document["scale"]:
        lines.append(
            f"| {point['num_requests']:,} | {point['wall_s']:.2f} | {point['requests_per_s']:,.0f} "
            f"| {point['requests_per_cpu_s']:,.0f} | {point['workload_mib']:.0f} | {point['peak_mib']:.0f} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-dynamo", action="store_true")
    parser.add_argument("--simdistserve", type=Path, metavar="CHECKOUT")
    parser.add_argument(
        "--scale", type=lambda text: [int(size) for size in text.split(",")], default=[10_000, 100_000, 1_000_000]
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sim-speed-") as name:
        rows = make_rows(args, Path(name))
        for round_number in range(args.rounds):
            print(f"round {round_number + 1} of {args.rounds}", file=sys.stderr, flush=True)
            for row in rows:
                wall_s, cpu_s = row.measure()
                row.wall_s.append(wall_s)
                row.cpu_s.append(cpu_s)
        peers = [] if args.no_dynamo else [_version(Path(name) / "peers", "ai-dynamo-runtime")]
    quoted = f"simdistserve quoted: {QUOTED_SIMDISTSERVE_RPS} requests/s, OPT-13B on 3 GPUs, two CPUs, quiet"
    peers.append("simdistserve from a checkout, in its event loop and as a whole" if args.simdistserve else quoted)
    document = {
        "origin": provenance([]),
        "rounds": args.rounds,
        "peers": "; ".join(peers),
        "rows": [row.as_dict() for row in rows],
        "scale": scale_points(args.scale),
    }
    text = as_markdown(document)
    print(text)
    if args.write:
        (RESULTS / "sim_speed.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "sim_speed.md").write_text(text, encoding="utf-8")
    return 0


def _version(environment: Path, package: str) -> str:
    command = [str(environment / "bin" / "python"), "-m", "pip", "show", package]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return f"{package} {next(line.split()[1] for line in shown.splitlines() if line.startswith('Version'))}"


if __name__ == "__main__":
    sys.exit(main())
