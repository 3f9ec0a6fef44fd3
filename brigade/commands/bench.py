"""`brigade bench`: open-loop load over HTTP against a live system, from the simulator's scenario files or from flags."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from brigade.bench.client import CompletionClient
from brigade.bench.open_loop import LoadLimits, LoadOutcome, OpenLoop
from brigade.bench.prompts import PromptMaker
from brigade.bench.system import Looks, SystemView, look_again, look_at_system
from brigade.core.errors import ConfigError
from brigade.core.settings import make_parser
from brigade.core.timeline import NS_PER_S
from brigade.report import RunResult, Validity, summarise
from brigade.report.plot import SUFFIXES, save_plot
from brigade.report.provenance import provenance
from brigade.report.requests_csv import write_requests
from brigade.report.tables import markdown
from brigade.report.validity import judge_lag
from brigade.runtime.lag import LoopLag, watch_lag
from brigade.sim.scenario import load_scenario
from brigade.workload import WorkloadRequest, WorkloadSpec, generate
from brigade.workload.spec import FixedLengths, MixPart, SLOSpec

EXIT_INVALID = 1
_OWN_LOOP = "brigade bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """A checked run: what is offered to whom, and where the result goes."""

    name: str
    seed: int
    requests: tuple[WorkloadRequest, ...]
    prefix_block_tokens: int
    args: argparse.Namespace

    @property
    def last_arrival_s(self) -> float:
        return self.requests[-1].arrival_ns / NS_PER_S


def parser() -> argparse.ArgumentParser:
    """Return the command line of `brigade bench`."""
    made = make_parser("brigade bench", "Offer a workload to a live system at the times it says, and report what came.")
    made.add_argument("scenario", nargs="?", help="scenario file (TOML); without one, the flags describe the workload")
    made.add_argument("--url", default="http://127.0.0.1:8000", help="the router (default %(default)s)")
    made.add_argument("--model", help="name of the model; the server's own when not given")
    made.add_argument("--api-key", help="key for /v1")
    made.add_argument("--admin-key", help="key for /admin; --api-key when not given")
    made.add_argument("--seed", type=int, help="seed of the workload; the scenario's when not given, else 0")
    made.add_argument("--rate-rps", type=float, help="mean rate in model time; scales a scenario's own")
    made.add_argument("--num-requests", type=int, help="offer at most so many")
    made.add_argument("--isl", type=int, help="tokens of every prompt, without a scenario")
    made.add_argument("--osl", type=int, help="tokens of every answer, without a scenario")
    made.add_argument("--slo-ttft-s", type=float, help="target in model time, without a scenario")
    made.add_argument("--slo-tpot-s", type=float, help="target in model time, without a scenario")
    made.add_argument("--time-scale", type=float, help="wall time per model time; the system's own when not given")
    made.add_argument("--max-s", type=float, default=3600.0, help="longest run in wall seconds (default %(default)g)")
    made.add_argument(
        "--drain-s", type=float, default=300.0, help="wait for answers after the last request (default %(default)g)"
    )
    made.add_argument("--low-token-id", type=int, default=300, help="prompts are drawn from here (default %(default)s)")
    made.add_argument("--high-token-id", type=int, default=1000, help="to below here (default %(default)s)")
    made.add_argument("--json", type=Path, help="file for the result")
    made.add_argument("--csv", type=Path, help="file for all requests (.gz compresses); needed to compare results")
    made.add_argument("--plot", type=Path, help="file for a plot: .png or .svg (with matplotlib) or .txt")
    return made


def run(argv: Sequence[str]) -> int:
    """Run one benchmark; return 0, or 1 when the run is invalid. Raises ConfigError, Unavailable."""
    args = parser().parse_args(argv)
    plan = make_plan(args)
    result, outcome = asyncio.run(_bench(plan, ["bench", *argv]))
    if args.csv is not None:
        write_requests(args.csv, outcome.timelines)
    if args.json is not None:
        result.save(args.json)
    if args.plot is not None:
        save_plot(args.plot, outcome.timelines, title=f"{result.name} ({result.kind})")
    print(markdown(result))
    for error, count in outcome.errors.most_common(5):
        print(f"brigade bench: {count} requests: {error}", file=sys.stderr)
    return 0 if result.validity.is_valid else EXIT_INVALID


def make_plan(args: argparse.Namespace) -> BenchPlan:
    """Read and check everything that can be checked without a server. Raises ConfigError."""
    for name in (
        "rate_rps",
        "num_requests",
        "isl",
        "osl",
        "time_scale",
        "max_s",
        "drain_s",
        "slo_ttft_s",
        "slo_tpot_s",
    ):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be above zero, not {value:g}")
    if not 0 <= args.low_token_id < args.high_token_id:
        raise ConfigError(f"--low-token-id {args.low_token_id} must be below --high-token-id {args.high_token_id}")
    for path in (args.json, args.csv, args.plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.resolve().parent}")
    if args.plot is not None and args.plot.suffix not in SUFFIXES:
        raise ConfigError(f"--plot {args.plot}: a plot ends in one of {', '.join(SUFFIXES)}")
    unloaded_prefill_ns: Callable[[int], int] | None = None
    if args.scenario is None:
        name, seed, spec = "flags", args.seed or 0, _spec_of_flags(args)
    else:
        for flag in ("isl", "osl", "slo_ttft_s", "slo_tpot_s"):
            if getattr(args, flag) is not None:
                raise ConfigError(f"--{flag.replace('_', '-')} is the scenario's to say; leave it out")
        scenario = load_scenario(args.scenario)
        name, spec, unloaded_prefill_ns = scenario.name, scenario.workload, scenario.unloaded_prefill_ns
        seed = scenario.seed if args.seed is None else args.seed
        if args.rate_rps is not None:
            spec = spec.at_rate(args.rate_rps)
        if args.num_requests is not None:
            spec = replace(spec, num_requests=min(args.num_requests, spec.num_requests or args.num_requests))
    requests = tuple(generate(spec, seed, unloaded_prefill_ns=unloaded_prefill_ns))
    if not requests:
        raise ConfigError("the workload has no requests")
    return BenchPlan(name=name, seed=seed, requests=requests, prefix_block_tokens=spec.prefix_block_tokens, args=args)


def _spec_of_flags(args: argparse.Namespace) -> WorkloadSpec:
    missing = [
        f"--{n.replace('_', '-')}" for n in ("rate_rps", "num_requests", "isl", "osl") if getattr(args, n) is None
    ]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} missing: give a scenario file, or --rate-rps, --num-requests, --isl, --osl"
        )
    lengths = FixedLengths(isl=args.isl, osl=args.osl)
    return WorkloadSpec(
        arrivals="poisson",
        rate_rps=args.rate_rps,
        num_requests=args.num_requests,
        mix=(MixPart(name="all", share=1.0, priority_class="standard", lengths=lengths),),
        slo={"": SLOSpec(ttft_s=args.slo_ttft_s, tpot_s=args.slo_tpot_s)},
    )


async def _bench(plan: BenchPlan, command: Sequence[str]) -> tuple[RunResult, LoadOutcome]:
    args, url = plan.args, plan.args.url.rstrip("/")
    admin_key = args.admin_key or args.api_key
    stop, give_up = asyncio.Event(), asyncio.Event()
    _end_on_signals(stop, give_up)
    headers = {"Authorization": f"Bearer {args.api_key}"} if args.api_key else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        before = await look_at_system(session, url, admin_key=admin_key)
        time_scale = _time_scale(args.time_scale, before)
        wall_s = plan.last_arrival_s * time_scale
        say = (
            f"{len(plan.requests)} requests over {plan.last_arrival_s:.0f} s of model time, {wall_s:.0f} s on the wall"
        )
        if wall_s > args.max_s:
            raise ConfigError(f"{say}: more than --max-s {args.max_s:g}; offer fewer (--num-requests) or allow more")
        print(f"brigade bench: {say}; Ctrl-C ends it and keeps what came", file=sys.stderr)
        prompts = PromptMaker(
            seed=plan.seed,
            low_id=args.low_token_id,
            high_id=args.high_token_id,
            prefix_block_tokens=plan.prefix_block_tokens,
        )
        loop = OpenLoop(
            CompletionClient(session, url, model=args.model),
            prompts,
            time_scale=time_scale,
            limits=LoadLimits(max_s=args.max_s, drain_s=args.drain_s),
            progress=_progress(len(plan.requests)),
        )
        with watch_lag() as lag:
            outcome = await loop.run(plan.requests, stop, give_up)
            after = None if before is None else await look_again(session, url, admin_key=admin_key)
    result = RunResult(
        kind="emulated" if before is not None and before.emulates else "real",
        name=plan.name,
        seed=plan.seed,
        provenance=provenance(command, taken_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        settings=_settings(url, before),
        summary=summarise(outcome.timelines, itl_counts_ns=outcome.itl_counts_ns),
        time_scale=time_scale,
        is_cut=outcome.is_cut,
        validity=_validity(before, after, lag),
        requests_csv=args.csv.name if args.csv is not None else None,
    )
    return result, outcome


def _time_scale(asked: float | None, system: SystemView | None) -> float:
    """Return the run's time scale: the system's, which a flag must not contradict."""
    if system is None:
        return asked or 1.0
    if asked is not None and asked != system.time_scale:
        raise ConfigError(f"--time-scale {asked:g}, but the system runs at {system.time_scale:g}")
    return system.time_scale


def _validity(before: SystemView | None, after: SystemView | None, own: LoopLag) -> Validity:
    """Judge an emulated run by every event loop that took part; a real one needs no judge: it is what it is."""
    if before is None or after is None or not before.emulates:
        return Validity()
    mine = Looks(num_looks=own.num_looks, total_lag_s=own.total_s)
    then = replace(before, loops={**before.loops, _OWN_LOOP: Looks(num_looks=0, total_lag_s=0.0)})
    now = replace(after, loops={**after.loops, _OWN_LOOP: mine})
    return judge_lag(now.lags_since(then), median_step_s=after.median_step_s)


def _settings(url: str, system: SystemView | None) -> dict[str, str]:
    settings = {"url": url}
    if system is not None:
        settings["workers"] = str(system.num_workers)
        if system.emulates:
            settings["emulates"] = system.emulates
    return settings


def _progress(num_requests: int) -> Callable[[int, int], None]:
    """Return what shows how far the run is, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda offered, ended: None

    def show(offered: int, ended: int) -> None:
        end = "\n" if ended == num_requests else ""
        print(f"\r{offered} of {num_requests} offered, {ended} ended ", end=end, file=sys.stderr, flush=True)

    return show


def _end_on_signals(stop: asyncio.Event, give_up: asyncio.Event) -> None:
    """First Ctrl-C: offer no more, wait for what is under way. Second: do not wait either."""

    def on_signal() -> None:
        if stop.is_set():
            give_up.set()
            return
        stop.set()
        print("\nbrigade bench: waiting for answers under way; Ctrl-C again ends them", file=sys.stderr)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
