"""What a second engine on the same host costs the first one: CPU and wall time of its steps, with and without.

    python -m benchmarks.engine_neighbour [--seconds S]

The second engine decodes in a process of its own that is stopped and continued in turns, so that everything else on the machine
hits both sides alike. A profile is measured without such a neighbour; a 1P1D installation always has one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median

from benchmarks.measures import provenance
from benchmarks.sim_vs_real import MODEL_SIZE
from brigade.core.step import Engine
from brigade.engine.load import load_engine
from brigade.engine.random_models import make_random_model
from brigade.policies.cost_model import PrefillPart
from brigade.profiling.points import Point
from brigade.profiling.stepping import slices_of

POINTS = {
    "prefill of 192 tokens": Point(parts=(PrefillPart(num_new_tokens=192),)),
    "decode of 1 at 200 tokens": Point(batch=1, context_tokens=200),
    "decode of 4 at 200 tokens": Point(batch=4, context_tokens=200),
}
TURN_S = 0.5
LOAD_DEADLINE_S = 60.0


def load(model: Path) -> Engine:
    return load_engine(
        str(model), dtype="auto", device="cpu", num_blocks=256, block_size_tokens=16, num_threads=1, linear="auto",
        attention="auto",
    )  # fmt: skip


def keep_stepping(model: Path, is_ready: Event) -> None:
    """Decode until ended."""
    engine = load(model)
    slices = slices_of(engine, POINTS["decode of 4 at 200 tokens"])
    is_ready.set()
    while True:
        engine.step(slices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds: float = parser.parse_args().seconds
    origin = provenance(("torch",))
    found: dict[tuple[str, bool], list[tuple[int, int]]] = {(n, w): [] for n in POINTS for w in (False, True)}
    with tempfile.TemporaryDirectory(prefix="brigade-bench-") as root:
        model = make_random_model("qwen3", Path(root) / "model", size=MODEL_SIZE)
        engine = load(model)
        work = {name: slices_of(engine, point) for name, point in POINTS.items()}
        context = multiprocessing.get_context("spawn")
        is_ready = context.Event()
        neighbour = context.Process(target=keep_stepping, args=(model, is_ready), daemon=True)
        neighbour.start()
        assert neighbour.pid is not None
        try:
            if not is_ready.wait(LOAD_DEADLINE_S):
                raise RuntimeError("the neighbour did not load its model")
            end_s, is_with = time.monotonic() + seconds, False
            while time.monotonic() < end_s:
                os.kill(neighbour.pid, signal.SIGCONT if is_with else signal.SIGSTOP)
                turn_s = time.monotonic() + TURN_S
                while time.monotonic() < turn_s:
                    for name, slices in work.items():
                        wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
                        engine.step(slices)
                        took = time.perf_counter_ns() - wall_ns, time.thread_time_ns() - cpu_ns
                        found[name, is_with].append(took)
                is_with = not is_with
        finally:
            neighbour.kill()
            neighbour.join()
    print(f"{origin['command']}, commit {origin['commit']}, {origin['hardware']}, load {origin['load_average_1min']}\n")
    print("| step | CPU ms alone | CPU with / without | wall ms alone | wall with / without | steps |")
    print("|---|---|---|---|---|---|")
    for name in POINTS:
        alone, beside = found[name, False], found[name, True]
        (wall, cpu), (wall_2, cpu_2) = (
            tuple(median(values) for values in zip(*s, strict=True)) for s in (alone, beside)
        )
        print(
            f"| {name} | {cpu / 1e6:.2f} | {cpu_2 / cpu:.2f} | {wall / 1e6:.2f} | {wall_2 / wall:.2f} "
            f"| {len(alone)}, {len(beside)} |"
        )


if __name__ == "__main__":
    main()
