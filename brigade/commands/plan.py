"""`brigade plan`: the cheapest cluster and split for a scenario's workload and SLO, and whether disaggregation helps at all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from brigade.commands.sim import EXIT_INTERRUPTED, count_flag, mean_rate, target_flag
from brigade.core.errors import ConfigError
from brigade.core.settings import make_parser
from brigade.report.tables import table
from brigade.sim.plan import Plan, Tried, make_plan
from brigade.sim.scenario import load_scenario
from brigade.sim.study import open_runner

EXIT_NO_PLAN = 1


def parser() -> argparse.ArgumentParser:
    """Return the command line of `brigade plan`."""
    made = make_parser(
        "brigade plan", "Find the cheapest cluster that holds a scenario's SLO, by simulating every split."
    )
    made.add_argument(
        "scenario", metavar="SCENARIO.toml", help="workload, targets, and one worker of each kind as a pattern"
    )
    made.add_argument("--target", metavar="PERCENT", default="90", help="attainment to hold (default 90)")
    made.add_argument("--max-gpus", metavar="N", default="16", help="largest cluster to try (default 16)")
    made.add_argument("--seeds", metavar="N", default="1", help="seeds of every try (default 1)")
    made.add_argument("--processes", metavar="N", default="1", help="runs at a time (default 1)")
    return made


def run(argv: Sequence[str]) -> int:
    """Search and report; 1 when no cluster up to the limit holds the target. Raises ConfigError."""
    args = parser().parse_args(argv)
    scenario = load_scenario(args.scenario)
    if scenario.workload.arrivals == "burst":
        raise ConfigError(f"{args.scenario}: a burst has no rate to plan for")
    target = target_flag(scenario, "--target", args.target)
    num_seeds = count_flag("--seeds", args.seeds, least=1)
    processes = count_flag("--processes", args.processes, least=1)
    max_gpus = count_flag("--max-gpus", args.max_gpus, least=1)
    seeds = range(scenario.seed, scenario.seed + num_seeds)
    tried: list[Tried] = []

    def show(one: Tried) -> None:
        tried.append(one)
        print(f"{one.split.num_gpus} GPUs, {one.split}: {one.point.attainment:.2%}", file=sys.stderr)

    try:
        with open_runner(scenario, processes) as runner:
            plan = make_plan(
                runner, seeds, target=target, rate_rps=mean_rate(scenario), max_gpus=max_gpus, on_tried=show
            )
    except KeyboardInterrupt:
        print("\n".join(["Ended early; tried so far:", "", *_rows(tried)]))
        return EXIT_INTERRUPTED
    print(f"# {scenario.name}: plan for {target:.4g} attainment at {mean_rate(scenario):.4g} req/s (simulated)\n")
    print("\n".join([*_answer(plan, max_gpus), "", *_rows(plan.tried)]))
    return 0 if plan.best is not None else EXIT_NO_PLAN


def _answer(plan: Plan, max_gpus: int) -> list[str]:
    if plan.best is None:
        lines = [f"No cluster of up to {max_gpus} GPUs holds the target; at {max_gpus}:"]
    else:
        lines = [f"Cheapest: {plan.best.split} on {plan.best.split.num_gpus} GPUs, {plan.best.point.attainment:.2%}."]
    for name, found in (("disaggregated", plan.disaggregated), ("aggregated", plan.aggregated)):
        if found is not None:
            split, goodput = found
            lines.append(
                f"- best {name} ({split}): goodput {goodput.rate_rps:.4g} req/s "
                f"(interval {goodput.low_rps:.4g} to {goodput.high_rps:.4g})"
            )
    if plan.margin is not None:
        helps = "helps" if plan.margin > 0 else "does not help"
        lines.append(f"- disaggregation {helps} here: {plan.margin:+.1%} goodput at equal GPUs")
    return lines


def _rows(tried: Sequence[Tried]) -> list[str]:
    head = ("cluster", "GPUs", "attainment", "95 % interval", "N", "horizon")
    rows = [
        [
            str(one.split),
            str(one.split.num_gpus),
            f"{one.point.attainment:.2%}",
            f"{one.point.low:.2%} to {one.point.high:.2%}",
            str(one.point.num_requests),
            f"{one.point.horizon_s:.0f} s",
        ]
        for one in tried
    ]
    return table(head, rows) if rows else []
