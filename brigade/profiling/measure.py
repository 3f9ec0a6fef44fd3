"""Measures an engine and makes its profile document."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from brigade.core.step import Engine
from brigade.policies.cost_forms import StepCosts
from brigade.policies.profile import FORMAT, parse_profile
from brigade.profiling.fit import fit_decode, fit_prefill, fit_transfer, residuals_of
from brigade.profiling.host import time_host_step_ns, time_transfers
from brigade.profiling.points import Point, decode_points, mixed_points, prefill_points
from brigade.profiling.stepping import Effort, Timing, Timings, limits_of, time_points

_HOST_STEPS = 100
_HOST_BATCH = 4
_TRANSFER_ROUNDS = 15
_SHARES = {"prefill": 0.55, "decode": 0.3, "mixed": 0.1}
"""Of the budget; the rest is for the host and the transfers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured, under which name, and how it is driven. `notes` describe the machine."""

    name: str
    engine: Engine
    max_batch_tokens: int
    max_num_seqs: int
    kv_dir: str
    notes: tuple[str, ...] = ()


def measure(subject: Subject, effort: Effort, tell: Callable[[str], None]) -> dict[str, object]:
    """Return the profile document. `tell` gets a line of progress now and then. Raises ConfigError."""
    engine = subject.engine
    limits = limits_of(engine, max_batch_tokens=subject.max_batch_tokens, max_num_seqs=subject.max_num_seqs)
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()

    def timed(phase: str, points: list[Point]) -> Timings:
        share = replace(effort, budget_s=effort.budget_s * _SHARES[phase])
        return time_points(engine, points, share, lambda n: tell(f"{phase}: {len(points)} steps, round {n}"))

    prefill, decode = timed("prefill", prefill_points(limits)), timed("decode", decode_points(limits))
    mixed = timed("mixed", mixed_points(limits)) if mixed_points(limits) else Timings(timings=(), num_left_out=0)
    cpu_share = (time.process_time_ns() - cpu_ns) / max(1, time.perf_counter_ns() - wall_ns)
    tell("host and transfers")
    host_step_ns = time_host_step_ns(engine, batch=min(_HOST_BATCH, limits.max_num_seqs), num_steps=_HOST_STEPS)
    transfers = time_transfers(
        directory=subject.kv_dir,
        block_bytes=engine.block_bytes,
        block_size_tokens=engine.block_size_tokens,
        num_rounds=_TRANSFER_ROUNDS,
    )
    bytes_per_token = engine.block_bytes // engine.block_size_tokens
    latency_ns, bytes_per_s = fit_transfer([(tokens * bytes_per_token, ns) for tokens, ns in transfers])
    num_left_out = prefill.num_left_out + decode.num_left_out + mixed.num_left_out
    document: dict[str, object] = {
        "format": FORMAT,
        "name": subject.name,
        "origin": "measured",
        "source": "brigade profile",
        "licence": "none",
        "notes": [
            *subject.notes,
            f"rounds: {_rounds(prefill)} prefill, {_rounds(decode)} decode; medians",
            f"the process got {cpu_share:.0%} of a core while it measured",
            *([f"{num_left_out} of the largest steps left out for lack of time"] if num_left_out else []),
        ],
        "num_gpus": 1,
        "prefill": fit_prefill(prefill.timings),
        "decode": fit_decode(decode.timings),
        "kv": {
            "bytes_per_token": bytes_per_token,
            "capacity_tokens": limits.pool_tokens,
            "rule": "the pool of the engine that was measured",
        },
        "transfer": {"origin": "measured", "latency_ns": latency_ns, "bytes_per_s": bytes_per_s},
        "host_step_ns": max(0, host_step_ns),
        "residuals": {},
    }
    costs = parse_profile(document, where=subject.name).costs
    document["residuals"] = {
        "prefill": _residuals(costs, prefill.timings),
        "decode": _residuals(costs, decode.timings),
        **({"mixed": _residuals(costs, mixed.timings)} if mixed.timings else {}),
        "transfer": residuals_of([(costs.kv_transfer_ns(tokens), ns) for tokens, ns in transfers]),
    }
    return document


def _residuals(costs: StepCosts, timings: Sequence[Timing]) -> dict[str, float]:
    return residuals_of([(price_ns(costs, timing.point), timing.duration_ns) for timing in timings])


def price_ns(costs: StepCosts, point: Point) -> int:
    """Return what the model asks for a point."""
    return costs.mixed_step_ns(point.parts, point.batch, point.batch * point.context_tokens)


def _rounds(timings: Timings) -> int:
    return timings.timings[0].num_rounds
