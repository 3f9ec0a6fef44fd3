"""`brigade profile`: measures this machine's engine with a model and writes the profile that everything else reads."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brigade.core.config import WorkerConfig
from brigade.core.errors import ConfigError
from brigade.core.settings import Sources, add_flags, make_parser
from brigade.policies.profile import dump_profile

if TYPE_CHECKING:
    from brigade.engine.engine import TorchEngine

DEFAULT_BUDGET_S = 100.0
MAX_ROUNDS = 25
_NAME = re.compile(r"[A-Za-z0-9.@-]+/[A-Za-z0-9.@-]+/tp[1-9][0-9]*")


def parser() -> argparse.ArgumentParser:
    """Return the parser; the flags of [worker] say how the engine is made."""
    made = make_parser("brigade profile", "Measure this machine's engine; write its costs as a profile (JSON).")
    made.add_argument("--out", metavar="FILE", required=True, help="file to write; it ends in .json")
    made.add_argument("--name", metavar="NAME", help="name of the profile (default: DEVICE/MODEL/tp1)")
    made.add_argument(
        "--budget-s",
        metavar="S",
        default=str(DEFAULT_BUDGET_S),
        help=f"time to measure (default {DEFAULT_BUDGET_S:.0f})",
    )
    made.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: count the time that a core gave to the engine, for a machine that others keep busy (default wall)",
    )
    add_flags(made, (WorkerConfig,))
    return made


def run(argv: Sequence[str]) -> int:
    """Measure and write. Raises ConfigError and ModelError before anything is measured."""
    args = parser().parse_args(argv)
    config = Sources.of((WorkerConfig,), args=args, env=os.environ).load(WorkerConfig)
    budget_s = _number("--budget-s", args.budget_s, low=1.0, high=3600.0)
    out = _out_file(args.out)
    if args.name is not None and not _NAME.fullmatch(args.name):
        raise ConfigError(f"--name: {args.name!r} is not like gpu/model/tp1")
    if args.clock == "cpu" and (config.device.startswith("cuda") or config.num_threads != 1):
        raise ConfigError("--clock cpu: counts one thread of a CPU; give --device cpu and --num-threads 1")
    engine, device = _engine(config)
    try:
        document = _measured(config, engine, device, args.name, budget_s=budget_s, clock=args.clock)
    finally:
        engine.close()
    out.write_text(dump_profile(document), encoding="utf-8")
    print(_summary(document, out))
    return 0


def _measured(
    config: WorkerConfig, engine: TorchEngine, device: str, name: str | None, *, budget_s: float, clock: str
) -> dict[str, object]:
    from brigade.profiling.measure import Subject, measure
    from brigade.profiling.stepping import Effort

    model = re.sub(r"[^A-Za-z0-9.@-]+", "-", Path(engine.model.name).name.lower()) or "model"
    subject = Subject(
        name=name or f"{device.partition(':')[0]}/{model}/tp1",
        engine=engine,
        max_batch_tokens=config.max_batch_tokens,
        max_num_seqs=config.max_num_seqs,
        kv_dir=config.kv_dir,
        notes=(
            f"{device}, {config.num_threads} thread(s), {engine.model.dtype}",
            f"plug-ins: linear {engine.linear_name}, attention {engine.attention_name}",
            f"{clock} time",
        ),
    )
    clock_ns = time.perf_counter_ns if clock == "wall" else time.thread_time_ns
    effort = Effort(budget_s=budget_s, max_rounds=MAX_ROUNDS, clock_ns=clock_ns)
    return measure(subject, effort, lambda line: print(line, file=sys.stderr))


def _engine(config: WorkerConfig) -> tuple[TorchEngine, str]:
    """Load the engine as a worker with these settings would; also return its device."""
    from brigade.engine.load import block_bytes, load_engine, model_info, resolve_device

    device = resolve_device(config.device)
    bytes_per_block = block_bytes(model_info(config.model, config.dtype), config.block_size_tokens)
    num_blocks = config.num_blocks or config.kv_memory_mb * 2**20 // bytes_per_block
    if num_blocks < 1:
        raise ConfigError(f"--kv-memory-mb {config.kv_memory_mb} holds no KV block: one has {bytes_per_block} bytes")
    engine = load_engine(
        config.model,
        dtype=config.dtype,
        device=device,
        num_blocks=num_blocks,
        block_size_tokens=config.block_size_tokens,
        num_threads=config.num_threads,
        linear=config.linear,
        attention=config.attention,
    )
    return engine, device


def _out_file(text: str) -> Path:
    """Check now what would fail after minutes of measuring."""
    out = Path(text)
    if out.suffix != ".json":
        raise ConfigError(f"--out: {text} must end in .json")
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigError(f"--out: {text} cannot be written: {out.parent} is no folder or {out.name} is one")
    return out


def _number(flag: str, text: str, *, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ConfigError(f"{flag}: {text!r} is not a number from {low:g} to {high:g}")
    return value


def _summary(document: Mapping[str, object], out: Path) -> str:
    """Return the residuals as lines for people."""
    lines = [f"{document['name']} -> {out}"]
    residuals = document["residuals"]
    assert isinstance(residuals, dict)
    for phase, found in residuals.items():
        lines.append(
            f"  {phase:<9}{found['num_points']:>4} points, error of the fit: mean {found['mean_rel']:.1%} "
            f"({found['mean_abs_ns'] / 1e6:.3f} ms), worst {found['max_rel']:.1%} ({found['max_abs_ns'] / 1e6:.3f} ms)"
        )
    lines.append(f"  host overhead of a step {int(str(document['host_step_ns'])) / 1e6:.3f} ms")
    return "\n".join(lines)
