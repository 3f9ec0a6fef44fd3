"""Our engine against transformers' continuous batching: engine to engine, in process, alternating, in one run.

    python -m benchmarks.engine_vs_transformers [--quick] [--rounds 3] [--threads 2] [--model DIR]

Without --model a random Qwen3 of 107 M parameters is made (bf16). Each engine runs in a process of its own, one at a
time, and takes turns with the other: load, answer a short warm-up, then the measured loads. CPU seconds are those of
that process during a load, all threads, user and system. Loading, warming up and compiling are left out for both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measures import RESULTS, ROOT, RequestTimes, RunFigures, figures_of, own_cpu_s, provenance
from benchmarks.workload import FULL_LOADS, QUICK_LOADS, BenchRequest, LengthRanges, Load, make_requests

ENGINES = ("ours", "transformers")
GOALS = {8: 2.0, 32: 4.0}
RATIOS = ("wall_us_per_token", "cpu_us_per_token")
BLOCK_SIZE_TOKENS = 16
_CHILD_DEADLINE_S = 1800.0


def run_child(options: argparse.Namespace) -> None:
    """Measure one engine in this process and print one JSON line."""
    vocab_size = json.loads((options.model / "config.json").read_text("utf-8"))["vocab_size"]
    answer, settings = (_start_ours if options.child == "ours" else _start_transformers)(options)
    warm_up = make_requests(
        4, seed=options.seed + 1, vocab_size=vocab_size, lengths=LengthRanges(max_prompt_tokens=256)
    )
    answer(warm_up, 4)
    figures: dict[int, dict[str, float]] = {}
    for load in _loads(options):
        requests = make_requests(load.num_requests, seed=options.seed, vocab_size=vocab_size)
        figures[load.concurrency] = _measure(requests, load, answer).as_dict()
    print(json.dumps({"figures": figures, "settings": settings()}), flush=True)


Answer = Callable[[Sequence[BenchRequest], int], list[RequestTimes]]


def _measure(requests: list[BenchRequest], load: Load, answer: Answer) -> RunFigures:
    cpu_s, start_s = own_cpu_s(), time.perf_counter()
    times = answer(requests, load.concurrency)
    wall_s, cpu_s = time.perf_counter() - start_s, own_cpu_s() - cpu_s
    assert len(times) == len(requests)
    return figures_of(
        times, num_prompt_tokens=sum(len(r.prompt_token_ids) for r in requests), wall_s=wall_s, cpu_s=cpu_s
    )


def _start_ours(options: argparse.Namespace) -> tuple[Answer, Callable[[], dict[str, Any]]]:
    from benchmarks.closed_loop import ClosedLoop
    from brigade.engine.load import load_engine

    engine = load_engine(
        options.model,
        dtype=options.dtype,
        device="cpu",
        num_blocks=options.pool_tokens // BLOCK_SIZE_TOKENS,
        block_size_tokens=BLOCK_SIZE_TOKENS,
        num_threads=options.threads,
    )

    def answer(requests: Sequence[BenchRequest], concurrency: int) -> list[RequestTimes]:
        loop = ClosedLoop(engine, concurrency=concurrency, max_batch_tokens=options.max_batch_tokens)
        return loop.run(requests)

    def settings() -> dict[str, Any]:
        return {
            "linear": engine.linear_name,
            "attention": engine.attention_name,
            "notes": list(engine.notes),
            "max_batch_tokens": options.max_batch_tokens,
        }

    return answer, settings


def _start_transformers(options: argparse.Namespace) -> tuple[Answer, Callable[[], dict[str, Any]]]:
    from benchmarks.peer_transformers import PAGE_SIZE_TOKENS, TransformersLoop

    peer = TransformersLoop(
        options.model,
        dtype=options.dtype,
        num_pool_tokens=options.pool_tokens,
        max_batch_tokens=options.peer_max_batch_tokens or None,
        num_threads=options.threads,
    )

    def answer(requests: Sequence[BenchRequest], concurrency: int) -> list[RequestTimes]:
        return peer.run(requests, concurrency=concurrency)

    def settings() -> dict[str, Any]:
        peer.close()
        return {"attention": "sdpa", "page_size_tokens": PAGE_SIZE_TOKENS, "max_batch_tokens": peer.max_batch_tokens}

    return answer, settings


def run_all(options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Let the engines take turns; returns everything that the report needs."""
    record: dict[str, Any] = {
        "provenance": provenance(("torch", "transformers")),
        "kind": "Real model (random weights), real engines, no HTTP",
        "quick": options.quick,
        "seed": options.seed,
        "threads": options.threads,
        "wait_policy": options.wait_policy,
        "dtype": options.dtype,
        "pool_tokens": options.pool_tokens,
        "loads": [[load.concurrency, load.num_requests] for load in _loads(options)],
        "settings": {},
        "rounds": [],
    }
    for number in range(options.rounds):
        # The first place changes hands, so that a machine growing busier or hotter favours nobody.
        order = ENGINES if number % 2 == 0 else ENGINES[::-1]
        both: dict[str, Any] = {}
        for engine in order:
            result = _spawn(engine, options, model)
            both[engine] = result["figures"]
            record["settings"][engine] = result["settings"]
            for concurrency, run in result["figures"].items():
                print(
                    f"round {number + 1} {engine:12} c={concurrency:>2}: {run['cpu_us_per_token']:8.0f} CPU us, "
                    f"{run['wall_us_per_token']:8.0f} wall us per output token",
                    file=sys.stderr,
                    flush=True,
                )
        record["rounds"].append(both)
    record["load_average_1min_at_end"] = round(os.getloadavg()[0], 2)
    record["medians"] = _medians(record)
    return record


def _spawn(engine: str, options: argparse.Namespace, model: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engine_vs_transformers", "--child", engine, "--model", str(model)]
    command += ["--seed", str(options.seed), "--threads", str(options.threads), "--dtype", options.dtype]
    command += ["--pool-tokens", str(options.pool_tokens), "--max-batch-tokens", str(options.max_batch_tokens)]
    command += ["--peer-max-batch-tokens", str(options.peer_max_batch_tokens)]
    if options.quick:
        command.append("--quick")
    threads = str(options.threads)
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    if options.wait_policy != "default":
        env["OMP_WAIT_POLICY"] = options.wait_policy
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=_CHILD_DEADLINE_S
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _medians(record: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Per concurrency: the median of every figure of each engine, and the median of the rounds' ratios theirs / ours."""
    medians: dict[str, dict[str, dict[str, float]]] = {}
    for concurrency, _ in record["loads"]:
        key = str(concurrency)
        of: dict[str, dict[str, float]] = {}
        rounds = record["rounds"]
        for engine in ENGINES:
            runs = [both[engine][key] for both in rounds]
            of[engine] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        # Within a round both met about the same machine, so the ratio is taken there before the median.
        of["theirs_over_ours"] = {
            name: statistics.median(both["transformers"][key][name] / both["ours"][key][name] for both in rounds)
            for name in RATIOS
        }
        of["theirs_over_ours_of_medians"] = {name: of["transformers"][name] / of["ours"][name] for name in RATIOS}
        medians[key] = of
    return medians


def as_markdown(record: dict[str, Any]) -> str:
    """The report as a table with its origin."""
    origin = record["provenance"]
    lines = [
        "# Our engine against transformers' continuous batching",
        "",
        f"{record['kind']}. Medians of {len(record['rounds'])} alternating rounds"
        + (", quick mode (fewer requests)." if record["quick"] else "."),
        "",
        f"- command: `{origin['command']}`",
        f"- seed {record['seed']}, {record['threads']} threads (OpenMP waits: {record['wait_policy']}), "
        f"{record['dtype']}, pool {record['pool_tokens']} tokens",
        f"- commit {origin['commit']}, taken {origin['taken_at']}",
        f"- {origin['hardware']}; load average {origin['load_average_1min']} before,"
        f" {record['load_average_1min_at_end']} after (other work on the machine counts), "
        f"nice {origin['nice']}",
        "- " + ", ".join(f"{name} {number}" for name, number in origin["versions"].items()),
        *(f"- {engine}: {json.dumps(record['settings'][engine])}" for engine in ENGINES),
        "",
        "| concurrency | engine | output tok/s | CPU µs/token | wall µs/token | TTFT p50 / p99 ms | TPOT p50 / p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for concurrency, of in record["medians"].items():
        for engine in ENGINES:
            run = of[engine]
            lines.append(
                f"| {concurrency} | {engine} | {1e6 / run['wall_us_per_token']:.1f} | {run['cpu_us_per_token']:.0f} "
                f"| {run['wall_us_per_token']:.0f} | {run['ttft_p50_ms']:.0f} / {run['ttft_p99_ms']:.0f} "
                f"| {run['tpot_p50_ms']:.1f} / {run['tpot_p99_ms']:.1f} |"
            )
    lines += [
        "",
        "Theirs / ours: the median of the rounds' ratios; in brackets the ratio of the medians above.",
        "",
        "| concurrency | wall | each round | CPU | each round | goal, both |",
        "|---|---|---|---|---|---|",
    ]
    for concurrency, of in record["medians"].items():
        cells = []
        for name in RATIOS:
            rounds = (
                both["transformers"][concurrency][name] / both["ours"][concurrency][name] for both in record["rounds"]
            )
            cells.append(f"{of['theirs_over_ours'][name]:.2f} ({of['theirs_over_ours_of_medians'][name]:.2f})")
            cells.append(", ".join(f"{ratio:.2f}" for ratio in rounds))
        lines.append(f"| {concurrency} | " + " | ".join(cells) + f" | ≥ {GOALS.get(int(concurrency), 1.0):g} |")
    return "\n".join(lines) + "\n"


def _loads(options: argparse.Namespace) -> tuple[Load, ...]:
    return QUICK_LOADS if options.quick else FULL_LOADS


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests: for a look, not for a claim")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a model folder (default: made, random weights)")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--pool-tokens", type=int, default=65_536)
    parser.add_argument("--max-batch-tokens", type=int, default=512, help="prompt tokens per step of ours")
    parser.add_argument(
        "--peer-max-batch-tokens",
        type=int,
        default=1024,
        help="theirs; 0: what transformers chooses (8192 here, slower than the default)",
    )
    parser.add_argument(
        "--wait-policy",
        default="passive",
        choices=("passive", "default"),
        help="how idle OpenMP threads of both engines wait; spinning ones burn CPU seconds on a busy machine",
    )
    parser.add_argument("--name", default="engine_vs_transformers", help="of the files in benchmarks/results")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if options.child:
        run_child(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or _make_model(Path(folder), options)
        record = run_all(options, model)
    RESULTS.mkdir(exist_ok=True)
    name = options.name + ("-quick" if options.quick else "")
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(as_markdown(record), encoding="utf-8")
    print(as_markdown(record))


def _make_model(folder: Path, options: argparse.Namespace) -> Path:
    command = [sys.executable, "-m", "brigade.engine.random_models", "qwen3", str(folder), "--size", "small"]
    subprocess.run([*command, "--seed", "0"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


if __name__ == "__main__":
    main()
