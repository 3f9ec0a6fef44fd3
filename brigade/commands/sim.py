"""`brigade sim`: runs a scenario in the simulator: once, over rates and seeds, or in search of the goodput."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from brigade.commands.sim_text import Progress, goodput_text, point_line, sweep_text
from brigade.core.errors import ConfigError
from brigade.core.settings import make_parser
from brigade.report.provenance import provenance
from brigade.report.result import RunResult
from brigade.report.tables import markdown
from brigade.sim.estimate import Estimate, available_bytes, estimate, num_requests_of
from brigade.sim.goodput import Goodput, GoodputSearch
from brigade.sim.scenario import Scenario, load_scenario
from brigade.sim.study import RunAsk, RunFound, found_of, open_runner, run_one

SAY_ABOVE_S, ASK_ABOVE_S = 20.0, 1800.0
EXIT_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """Return the command line of `brigade sim`."""
    made = make_parser("brigade sim", "Simulate a scenario with the live policies.")
    made.add_argument("scenario", metavar="SCENARIO.toml", help="what to simulate (docs/simulator.md)")
    made.add_argument("--seed", metavar="N", help="first seed; the scenario's own when not given")
    made.add_argument(
        "--seeds", metavar="N", default="1", help="number of seeds, counted up from the first (default 1)"
    )
    made.add_argument("--rates", metavar="R,R,...", help="mean rates to run at, in requests/s; traces are scaled")
    made.add_argument(
        "--goodput",
        metavar="PERCENT",
        help="search the highest rate at which so many percent of requests meet their SLO, such as 90",
    )
    made.add_argument("--out", metavar="DIR", help="folder for the result (JSON) and all requests (CSV)")
    made.add_argument(
        "--processes", metavar="N", default="1", help="runs at a time, each in its own process (default 1)"
    )
    made.add_argument("--yes", action="store_true", help="run even what the estimate says is very large")
    return made


def run(argv: Sequence[str]) -> int:
    """Simulate and report. Raises ConfigError before anything is run."""
    args = parser().parse_args(argv)
    scenario = load_scenario(args.scenario)
    first = scenario.seed if args.seed is None else count_flag("--seed", args.seed, least=0)
    seeds = range(first, first + count_flag("--seeds", args.seeds, least=1))
    rates = _rates(scenario, args.rates)
    processes = count_flag("--processes", args.processes, least=1)
    target = None if args.goodput is None else target_flag(scenario, "--goodput", args.goodput)
    if target is not None and args.rates is not None:
        raise ConfigError("--goodput looks for the rate itself; give it without --rates")
    if target is not None and scenario.workload.arrivals == "burst":
        raise ConfigError("--goodput: a burst has no rate")
    out = _out_folder(args.out)
    num_runs = len(seeds) * len(rates)
    _check_size(estimate(scenario, num_runs=num_runs, processes=processes), force=args.yes)
    if target is not None:
        return _search(scenario, seeds, target, out, processes)
    if num_runs == 1:
        return _single(scenario, seeds[0], rates[0], out, argv)
    return _sweep(scenario, seeds, rates, out, processes)


def _single(scenario: Scenario, seed: int, rate_rps: float | None, out: Path | None, argv: Sequence[str]) -> int:
    csv_path = None if out is None else str(out / "requests.csv.gz")
    ask = RunAsk(seed=seed, rate_rps=rate_rps, csv_path=csv_path)
    with Progress(num_requests_of(scenario.workload)) as progress:
        result = run_one(scenario, ask, progress.show)
    found = found_of(ask, result)
    report = RunResult(
        kind="simulated",
        name=scenario.name,
        seed=seed,
        provenance=provenance(["sim", *argv]),
        settings=_settings(scenario, rate_rps),
        summary=found.summary,
        is_cut=result.was_interrupted,
        requests_csv=None if csv_path is None else "requests.csv.gz",
    )
    if out is not None:
        report.save(out / "result.json")
    print(markdown(report))
    for flip in result.flips:
        when = f"{flip.decided_ns / 1e9:.3f} s"
        done = "refused" if flip.switched_ns is None else f"after {(flip.switched_ns - flip.decided_ns) / 1e9:.3f} s"
        print(f"- flip of {flip.worker_id} to {flip.role} at {when}: {done} ({flip.reason})")
    if result.num_unfinished:
        print(f"- {result.num_unfinished} requests had not ended when the run did: they are misses")
    return EXIT_INTERRUPTED if result.was_interrupted else 0


def _sweep(
    scenario: Scenario, seeds: Sequence[int], rates: Sequence[float | None], out: Path | None, processes: int
) -> int:
    asks = [
        RunAsk(seed=seed, rate_rps=rate, csv_path=None if out is None else str(out / _csv_name(rate, seed)))
        for rate in rates
        for seed in seeds
    ]
    found: list[RunFound] = []
    was_interrupted = False
    with Progress(len(asks), "runs") as progress:
        try:
            with open_runner(scenario, processes) as runner:
                for run_found in runner.run(asks):
                    found.append(run_found)
                    progress.show(len(found))
        except KeyboardInterrupt:
            was_interrupted = True
    text = sweep_text(scenario, found, num_asked=len(asks))
    print(text)
    if out is not None:
        (out / "sweep.md").write_text(text, encoding="utf-8")
    return EXIT_INTERRUPTED if was_interrupted else 0


def _search(scenario: Scenario, seeds: Sequence[int], target: float, out: Path | None, processes: int) -> int:
    was_interrupted = False
    goodput: Goodput | None = None
    with open_runner(scenario, processes) as runner:
        search = GoodputSearch(runner, seeds, lambda point: print(point_line(point), file=sys.stderr))
        try:
            goodput = search.goodput(target, mean_rate(scenario))
        except KeyboardInterrupt:
            was_interrupted = True
    text = goodput_text(scenario, goodput, search.points, num_seeds=len(seeds))
    print(text)
    if out is not None:
        (out / "goodput.md").write_text(text, encoding="utf-8")
    return EXIT_INTERRUPTED if was_interrupted else 0


def mean_rate(scenario: Scenario) -> float:
    """Return the scenario's own mean rate."""
    workload = scenario.workload
    if workload.phases:
        duration_s = math.fsum(phase.duration_s for phase in workload.phases)
        return math.fsum(phase.rate_rps * phase.duration_s for phase in workload.phases) / duration_s
    if workload.arrivals == "trace":
        last_ns = workload.trace[-1].arrival_ns or 1
        return (len(workload.trace) - 1) / (last_ns / 1e9) * workload.rate_scale
    return workload.rate_rps


def _settings(scenario: Scenario, rate_rps: float | None) -> dict[str, str]:
    counts: dict[str, int] = {}
    for worker in scenario.workers:
        kind = f"{worker.role.value} {worker.profile}" + ("" if worker.slowdown == 1 else f" x {worker.slowdown:g}")
        counts[kind] = counts.get(kind, 0) + 1
    return {
        "scenario": Path(scenario.path).name,
        "rate": "the scenario's" if rate_rps is None else f"{rate_rps:g} req/s",
        "workers": " + ".join(f"{count} {kind}" for kind, count in counts.items()),
        "batching": scenario.batching,
        "placement": scenario.placement,
        "GPUs": str(scenario.num_gpus),
    }


def _csv_name(rate_rps: float | None, seed: int) -> str:
    return f"requests_seed{seed}.csv.gz" if rate_rps is None else f"requests_rate{rate_rps:g}_seed{seed}.csv.gz"


def _check_size(size: Estimate, *, force: bool) -> None:
    """Say what a large run will cost; refuse one that this machine or anybody's patience may not bear."""
    if size.duration_s > SAY_ABOVE_S or size.memory_bytes > available_bytes() // 4:
        print(f"brigade sim: {size}", file=sys.stderr)
    if not force and (size.duration_s > ASK_ABOVE_S or size.memory_bytes > available_bytes()):
        raise ConfigError(f"this would take {size}; add --yes to run it all the same")


def _rates(scenario: Scenario, text: str | None) -> Sequence[float | None]:
    if text is None:
        return [None]
    if scenario.workload.arrivals == "burst":
        raise ConfigError("--rates: a burst has no rate")
    return [_positive("--rates", word) for word in text.split(",")]


def target_flag(scenario: Scenario, flag: str, text: str) -> float:
    """Return an attainment given in percent. Raises ConfigError, also where the scenario has nothing to attain."""
    percent = _positive(flag, text)
    if percent > 100:
        raise ConfigError(f"{flag} must be at most 100, not {text}")
    if all(slo.ttft_s is None and slo.tpot_s is None for slo in scenario.workload.slo.values()):
        raise ConfigError(f"{flag}: {scenario.path} sets no targets in [slo], so every rate would do")
    return percent / 100


def _out_folder(text: str | None) -> Path | None:
    if text is None:
        return None
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {text} cannot be made: {error}") from error
    return Path(text)


def count_flag(flag: str, text: str, *, least: int) -> int:
    """Return a whole number. Raises ConfigError."""
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ConfigError(f"{flag} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _positive(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{flag} must be above 0, not {text!r}")
    return value
