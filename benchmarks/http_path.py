"""The whole product over HTTP, as processes on this host: what the path costs, and what it adds to the model's time.

    python -m benchmarks.http_path [--quick] [--only path_cost,ttft,handover,throughput,peer] [--model DIR]

`path_cost`   emulated engine (each step sleeps, computes nearly nothing): CPU of router, workers without their engines,
              and Redis per token, at 32 streams
`ttft`        real model, idle: client's time to first token minus the prefill step
`handover`    real model, idle, 1P1D, 1,024 tokens: end of the prefill step to start of the first decode step
`throughput`  real model: the workload of engine_vs_transformers over HTTP
`peer`        the same as text, against `transformers serve --continuous-batching` (needs fastapi, uvicorn, accelerate)

The client is a process of its own on the same cores; its CPU is not counted. Without --model a random Qwen3 of 107 M
parameters is made for the real engine; the emulated one always borrows the bundled demo model's tokenizer.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.installation import EngineChoice, Installation
from benchmarks.measures import RESULTS, ROOT, RequestTimes, figures_of, percentile, provenance
from benchmarks.peer_serve import TransformersServer, is_installed, without_end_ids
from benchmarks.sse_client import Counting, closed_loop
from benchmarks.timed_engine import StepNote
from benchmarks.workload import FULL_LOADS, QUICK_LOADS, BenchRequest, LengthRanges, make_requests

DEMO_MODEL = ROOT / "models" / "demo"
LAYOUTS = {"mixed": ("mixed",), "1P1D": ("prefill", "decode")}
STEP_MS = 10.0
NUM_STREAMS = 32
GOALS = {"path_cpu_us_per_token": 80.0, "added_ttft_p50_ms": 15.0, "handover_minus_copy_ms": 5.0}
Row = dict[str, Any]


def ask(
    install: Installation, requests: Sequence[BenchRequest], concurrency: int, counting: Counting = "token_ids"
) -> list[RequestTimes]:
    """Answer all requests over HTTP and return their times (CLOCK_MONOTONIC)."""
    pairs = [(list(request.prompt_token_ids), request.num_output_tokens) for request in requests]
    return asyncio.run(_watched(install, pairs, concurrency, counting))


async def _watched(
    install: Installation, pairs: Sequence[tuple[list[int] | str, int]], concurrency: int, counting: Counting
) -> list[RequestTimes]:
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(install.watch())
        loop = closed_loop(install.port, pairs, model=install.model_name, concurrency=concurrency, counting=counting)
        times = await tasks.create_task(loop)
        watch.cancel()
    return times


def path_cost(options: argparse.Namespace, folder: Callable[[], Path]) -> list[Row]:
    """CPU per token of everything but the engine, for long streams and for the usual workload."""
    num_tokens, num_requests = (200, 64) if options.quick else (1000, 256)
    long_streams = LengthRanges(
        min_prompt_tokens=16, max_prompt_tokens=64, min_output_tokens=num_tokens, max_output_tokens=num_tokens
    )
    vocab_size = _vocab_size(DEMO_MODEL)
    loads = {
        "long streams": make_requests(NUM_STREAMS, seed=options.seed, vocab_size=vocab_size, lengths=long_streams),
        "workload": make_requests(num_requests, seed=options.seed, vocab_size=vocab_size, lengths=_bounded(DEMO_MODEL)),
    }
    rows = []
    for layout, roles in LAYOUTS.items():
        engine = EngineChoice(kind="emulated", step_ms=STEP_MS, num_blocks=16384)
        with Installation(folder(), DEMO_MODEL, roles, engine) as install:
            ask(install, make_requests(NUM_STREAMS, seed=options.seed + 1, vocab_size=vocab_size), NUM_STREAMS)
            windows = []
            for name, requests in loads.items():
                before, start_s = install.cpu_s(), time.monotonic()
                ask(install, requests, NUM_STREAMS, "usage")
                spent = {part: cpu - before[part] for part, cpu in install.cpu_s().items()}
                windows.append((name, requests, spent, start_s, time.monotonic()))
            notes = install.notes()
        rows += [_path_row(layout, window, notes) for window in windows]
    return rows


def _path_row(layout: str, window: tuple[Any, ...], notes: dict[str, list[StepNote]]) -> Row:
    name, requests, spent, start_s, end_s = window
    num_tokens = sum(request.num_output_tokens for request in requests)
    engine_s = {worker: _engine_cpu_s(steps, start_s, end_s) for worker, steps in notes.items()}

    def us(seconds: float) -> float:
        return float(seconds / num_tokens * 1e6)

    workers_s = sum(spent[worker] - engine_s[worker] for worker in notes)
    return {
        "layout": layout,
        "load": name,
        "num_tokens": num_tokens,
        "num_requests": len(requests),
        "tokens_per_s": num_tokens / (end_s - start_s),
        "router_us": us(spent["router"]),
        "workers_us": us(workers_s),
        "redis_us": us(spent["redis"]),
        "path_cpu_us_per_token": us(spent["router"] + workers_s + spent["redis"]),
        "balancer_us": us(spent["balancer"]),
        "engine_us_left_out": us(sum(engine_s.values())),
    }


def ttft(options: argparse.Namespace, folder: Callable[[], Path]) -> list[Row]:
    """Client's time to first token less the steps up to the first token, one request at a time."""
    num_requests = 10 if options.quick else 50
    rows = []
    for layout, roles in LAYOUTS.items():
        with Installation(folder(), options.model, roles, EngineChoice(kind="real")) as install:
            times = _one_by_one(install, options, num_requests, num_prompt_tokens=128)
            notes = install.notes()
        steps = sorted((step for worker in notes.values() for step in worker), key=lambda step: step.start_s)
        model_ms = [_first_token_steps_s(steps, item) * 1e3 for item in times]
        added_ms = [item.ttft_s * 1e3 - model for item, model in zip(times, model_ms, strict=True)]
        rows.append(
            {
                "layout": layout,
                "num_requests": num_requests,
                "num_prompt_tokens": 128,
                "ttft_p50_ms": median(item.ttft_s * 1e3 for item in times),
                "model_p50_ms": median(model_ms),
                "added_ttft_p50_ms": median(added_ms),
                "added_ttft_min_ms": min(added_ms),
                "added_ttft_p99_ms": percentile(added_ms, 99),
            }
        )
    return rows


def handover(options: argparse.Namespace, folder: Callable[[], Path]) -> list[Row]:
    """End of a prefill step to the start of the request's first decode step on the other worker."""
    num_requests, num_prompt_tokens = (8 if options.quick else 40), 1024
    with Installation(folder(), options.model, LAYOUTS["1P1D"], EngineChoice(kind="real")) as install:
        times = _one_by_one(install, options, num_requests, num_prompt_tokens=num_prompt_tokens)
        notes = install.notes()
    gaps_ms = []
    for item in times:
        prefill = [step for step in notes["prefill-0"] if item.sent_s <= step.start_s and step.num_sampled]
        decode = [step for step in notes["decode-1"] if item.sent_s <= step.start_s]
        gaps_ms.append((decode[0].start_s - prefill[0].end_s) * 1e3)
    num_bytes = num_prompt_tokens * _kv_bytes_per_token(options.model)
    copy_ms = _copy_ms(num_bytes)
    return [
        {
            "layout": "1P1D",
            "num_requests": num_requests,
            "num_prompt_tokens": num_prompt_tokens,
            "kv_mb": num_bytes / 1e6,
            "gap_p50_ms": median(gaps_ms),
            "gap_min_ms": min(gaps_ms),
            "gap_p99_ms": percentile(gaps_ms, 99),
            "plain_copy_p50_ms": copy_ms,
            "handover_minus_copy_ms": median(gaps_ms) - copy_ms,
        }
    ]


def throughput(options: argparse.Namespace, folder: Callable[[], Path]) -> list[Row]:
    """The workload of the in-process comparison through plain services; CPU is that of all our processes."""
    rows = []
    choices = {"mixed, 2 threads": (("mixed",), 2), "1P1D, 1 thread each": (("prefill", "decode"), 1)}
    vocab_size = _vocab_size(options.model)
    for layout, (roles, num_threads) in choices.items():
        with Installation(folder(), options.model, roles, EngineChoice(num_threads=num_threads)) as install:
            ask(install, make_requests(4, seed=options.seed + 1, vocab_size=vocab_size), 4)
            for load in QUICK_LOADS if options.quick else FULL_LOADS:
                requests = make_requests(load.num_requests, seed=options.seed, vocab_size=vocab_size)
                before, start_s = sum(install.cpu_s().values()), time.monotonic()
                times = ask(install, requests, load.concurrency)
                figures = figures_of(
                    times,
                    num_prompt_tokens=sum(len(request.prompt_token_ids) for request in requests),
                    wall_s=time.monotonic() - start_s,
                    cpu_s=sum(install.cpu_s().values()) - before,
                )
                rows.append({"layout": layout, "concurrency": load.concurrency, **figures.as_dict()})
    return rows


def peer(options: argparse.Namespace, folder: Callable[[], Path]) -> list[Row]:
    """The workload as text through our services and through `transformers serve`, one after the other."""
    if not is_installed():
        print("peer left out: fastapi, uvicorn and accelerate are not all installed", file=sys.stderr)
        return []
    model = without_end_ids(options.model, folder() / "model")
    vocab_size, rows = _vocab_size(model), []
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    loads = {
        load: [
            (tokenizer.decode(list(request.prompt_token_ids)), request.num_output_tokens)
            for request in make_requests(load.num_requests, seed=options.seed, vocab_size=vocab_size)
        ]
        for load in (QUICK_LOADS if options.quick else FULL_LOADS)
    }

    def measure(name: str, port: int, model_name: str, cpu_s: Callable[[], float], counting: Counting) -> None:
        def answer(pairs: Sequence[tuple[str, int]], concurrency: int) -> list[RequestTimes]:
            return asyncio.run(closed_loop(port, pairs, model=model_name, concurrency=concurrency, counting=counting))

        answer(loads[next(iter(loads))][:4], 4)
        for load, pairs in loads.items():
            before, start_s = cpu_s(), time.monotonic()
            times = answer(pairs, load.concurrency)
            wall_s, num_tokens = time.monotonic() - start_s, sum(tokens for _, tokens in pairs)
            used_s = cpu_s() - before
            rows.append(
                {
                    "server": name,
                    "concurrency": load.concurrency,
                    "num_output_tokens": num_tokens,
                    "num_events": sum(len(item.token_s) for item in times),
                    "wall_us_per_token": wall_s / num_tokens * 1e6,
                    "cpu_us_per_token": used_s / num_tokens * 1e6,
                    "ttft_p50_ms": median(item.ttft_s * 1e3 for item in times),
                    "ttft_p99_ms": percentile([item.ttft_s * 1e3 for item in times], 99),
                }
            )

    with Installation(folder(), model, ("mixed",), EngineChoice(num_threads=2)) as install:
        measure(
            "ours, mixed, 2 threads", install.port, install.model_name, lambda: sum(install.cpu_s().values()), "usage"
        )
    with TransformersServer(model, dtype="bfloat16", num_threads=2, log=folder() / "peer.log") as server:
        measure("transformers serve, 2 threads", server.port, server.model_name, server.cpu_s, "events")
    return rows


def _one_by_one(
    install: Installation, options: argparse.Namespace, num_requests: int, *, num_prompt_tokens: int
) -> list[RequestTimes]:
    """Ask one after the other, new prompts of one length; the first two warm up and are left out."""
    lengths = LengthRanges(
        min_prompt_tokens=num_prompt_tokens,
        max_prompt_tokens=num_prompt_tokens,
        min_output_tokens=4,
        max_output_tokens=4,
    )
    vocab_size = _vocab_size(options.model)
    requests = make_requests(num_requests + 2, seed=options.seed, vocab_size=vocab_size, lengths=lengths)
    return ask(install, requests, 1)[2:]


def _engine_cpu_s(steps: Sequence[StepNote], start_s: float, end_s: float) -> float:
    return sum(step.cpu_s for step in steps if start_s <= step.start_s and step.end_s <= end_s)


def _first_token_steps_s(steps: Sequence[StepNote], times: RequestTimes) -> float:
    """Seconds of the steps after the request was sent, up to the one that drew its first token."""
    total_s = 0.0
    for step in steps:
        if step.start_s >= times.sent_s:
            total_s += step.end_s - step.start_s
            if step.num_sampled:
                return total_s
    raise AssertionError("no step drew the first token")


def _copy_ms(num_bytes: int) -> float:
    source, target = np.ones(num_bytes, np.uint8), np.full(num_bytes, 2, np.uint8)
    taken_ms = []
    for _ in range(50):
        start_s = time.perf_counter()
        np.copyto(target, source)
        taken_ms.append((time.perf_counter() - start_s) * 1e3)
    return median(taken_ms)


def _config(model: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
    return config


def _vocab_size(model: Path) -> int:
    return int(_config(model)["vocab_size"])


def _bounded(model: Path) -> LengthRanges:
    """The usual lengths, cut to what the model's context holds."""
    limit = int(_config(model)["max_position_embeddings"])
    return LengthRanges(max_prompt_tokens=min(1024, limit - LengthRanges().max_output_tokens))


def _kv_bytes_per_token(model: Path) -> int:
    config = _config(model)
    num_heads = int(config["num_key_value_heads"])
    num_bytes = 2 if config.get("torch_dtype") == "bfloat16" else 4
    return 2 * int(config["num_hidden_layers"]) * num_heads * int(config["head_dim"]) * num_bytes


EXPERIMENTS = {"path_cost": path_cost, "ttft": ttft, "handover": handover, "throughput": throughput, "peer": peer}
KINDS = {
    "path_cost": f"emulated engine, {STEP_MS:g} ms a step, {NUM_STREAMS} streams",
    "ttft": "real engine, random weights, one request at a time",
    "handover": "real engine, random weights, one request at a time",
    "throughput": "real engine, random weights",
    "peer": "real engines, random weights, text prompts",
}


def as_markdown(record: dict[str, Any]) -> str:
    """One table per experiment, with its origin."""
    lines = ["# The product over HTTP", ""]
    for name, result in record.items():
        origin = result["provenance"]
        lines += [f"## {name}: {KINDS[name]}", ""]
        lines += [f"- command: `{origin['command']}`, seed {result['seed']}, model {result['model']}"]
        lines += [f"- commit {origin['commit']}, taken {origin['taken_at']}, {origin['hardware']}"]
        lines += [
            f"- load average {origin['load_average_1min']} before, {result['load_average_1min_at_end']} after "
            f"(other work counts), nice {origin['nice']}; "
            + ", ".join(f"{package} {number}" for package, number in origin["versions"].items()),
            "",
        ]
        columns = list(result["rows"][0])
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for row in result["rows"]:
            values = (f"{row[c]:.2f}" if isinstance(row[c], float) else str(row[c]) for c in columns)
            lines.append("| " + " | ".join(values) + " |")
        goals = [f"{column} ≤ {goal:g}" for column, goal in GOALS.items() if column in columns]
        lines += ["", *(f"Goal: {goal}" for goal in goals), ""]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests: for a look, not for a claim")
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help="experiments, comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="model folder of the real engine (default: made, random weights)")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(EXPERIMENTS):
        parser.error(f"unknown experiments: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    options = parse()
    name = "http_path-quick" if options.quick else "http_path"
    path = RESULTS / f"{name}.json"
    # Experiments that are not run again keep what they had, with the origin of that run.
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="brigade-bench-") as root:
        if options.model is None:
            options.model = Path(root) / "small"
            command = [sys.executable, "-m", "brigade.engine.random_models", "qwen3", str(options.model)]
            subprocess.run([*command, "--size", "small"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for experiment in options.only:
            origin = provenance(("torch", "transformers", "aiohttp", "redis"))
            rows = EXPERIMENTS[experiment](options, lambda: Path(tempfile.mkdtemp(dir=root)))
            if not rows:
                continue
            record[experiment] = {
                "provenance": origin,
                "seed": options.seed,
                "model": "models/demo" if experiment == "path_cost" else options.model.name,
                "load_average_1min_at_end": round(os.getloadavg()[0], 2),
                "rows": rows,
            }
            print(experiment, json.dumps(rows, indent=1), file=sys.stderr, flush=True)
    record = {experiment: record[experiment] for experiment in EXPERIMENTS if experiment in record}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(as_markdown(record), encoding="utf-8")
    print(as_markdown(record))


if __name__ == "__main__":
    main()
