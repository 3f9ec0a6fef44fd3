"""Run the model: `python -m verification.protocol [fixed|naive|side] [NAME...]`.

Exit status 1 when a scenario is violated, when a mistake finds no counterexample, or when a harmless one finds one.
"""

import argparse
import sys
from collections.abc import Container

from verification.protocol.explore import Result, explore
from verification.protocol.mistakes import MISTAKES, switches_of
from verification.protocol.model import Model
from verification.protocol.scenarios import SCENARIOS
from verification.protocol.side_models import SIDE_MODELS


class _Everything(Container[str]):
    def __contains__(self, _name: object) -> bool:
        return True


def _show_trace(trace: tuple[str, ...]) -> None:
    for number, label in enumerate(trace, 1):
        print(f"        {number:2d}. {label}")


def _show(result: Result, *, with_trace: bool) -> None:
    extent = "complete" if result.complete else "CUT (limit)"
    verdict = "holds" if result.violation is None else f"VIOLATED {result.violation}"
    print(
        f"    {result.num_states:>9,} states {result.num_transitions:>10,} transitions "
        f"{result.cpu_s:>6.1f} s {extent}  {verdict}",
        flush=True,
    )
    if with_trace:
        _show_trace(result.trace)


def run_fixed(names: Container[str], *, limit_s: float, max_states: int) -> list[str]:
    """Names of the scenarios in which an invariant is violated."""
    failed, total = [], 0
    for name, scenario in SCENARIOS.items():
        if name not in names:
            continue
        print(f"{name}: {scenario.settings()}", flush=True)
        result = explore(Model(scenario), limit_s=limit_s, max_states=max_states)
        _show(result, with_trace=True)
        total += result.num_states
        if result.violation is not None:
            failed.append(name)
    print(f"states explored with all rules on: {total:,}")
    return failed


def run_naive(names: Container[str], *, limit_s: float, max_states: int, with_traces: bool) -> list[str]:
    """Names of the mistakes that find no counterexample, and of harmless ones that find one."""
    failed, total = [], 0
    for name, mistake in MISTAKES.items():
        if name not in names:
            continue
        harmless = " (harmless)" if mistake.harmless else ""
        print(f"{name}{harmless}, rule {mistake.rule}: {mistake.text}: {mistake.scenario.settings()}", flush=True)
        model = Model(mistake.scenario, switches_of(name, mistake))
        result = explore(model, limit_s=limit_s, max_states=max_states, beginning=mistake.beginning)
        _show(result, with_trace=with_traces)
        total += result.num_states
        if (result.violation is None) != mistake.harmless:
            failed.append(name)
    print(f"states explored with mistakes: {total:,}")
    return failed


def run_side(names: Container[str]) -> list[str]:
    """Names of the side models that do not end as they must."""
    failed = []
    for name, model in SIDE_MODELS.items():
        if name not in names:
            continue
        result = model.run()
        verdict = "holds" if result.violation is None else f"VIOLATED {result.violation}"
        print(f"{name}: {model.text}: {result.num_states:,} states, {verdict}", flush=True)
        _show_trace(result.trace)
        if (result.violation is None) != model.must_hold:
            failed.append(name)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m verification.protocol", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "fixed", "naive", "side"), default="all")
    parser.add_argument("names", nargs="*", help="scenarios, mistakes or side models; default: all of them")
    parser.add_argument("--limit-s", type=float, default=120.0, help="most CPU seconds for one exploration")
    parser.add_argument("--max-states", type=int, default=2_000_000, help="most states of one exploration")
    parser.add_argument("--no-traces", action="store_true", help="do not show the counterexamples of the mistakes")
    options = parser.parse_intermixed_args(arguments)
    unknown = set(options.names) - SCENARIOS.keys() - MISTAKES.keys() - SIDE_MODELS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names: Container[str] = frozenset(options.names) if options.names else _Everything()
    failed = []
    if options.what in ("all", "side"):
        failed += run_side(names)
    if options.what in ("all", "fixed"):
        failed += run_fixed(names, limit_s=options.limit_s, max_states=options.max_states)
    if options.what in ("all", "naive"):
        failed += run_naive(
            names, limit_s=options.limit_s, max_states=options.max_states, with_traces=not options.no_traces
        )
    if failed:
        print(f"NOT as expected: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
