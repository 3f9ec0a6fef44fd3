"""The command `brigade`: finds the subcommand and hands it the rest of the line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from brigade.core.errors import BrigadeError
from brigade.runtime.service_args import EXIT_WRONG_SETTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand. `load` imports it only when it is asked for: `brigade version` need not load an HTTP client."""

    summary: str
    load: Callable[[], Callable[[Sequence[str]], int]]


def _up() -> Callable[[Sequence[str]], int]:
    from brigade.commands import up

    return up.run


def _worker() -> Callable[[Sequence[str]], int]:
    from brigade.commands import worker

    return worker.run


def _profile() -> Callable[[Sequence[str]], int]:
    from brigade.commands import profile

    return profile.run


def _sim() -> Callable[[Sequence[str]], int]:
    from brigade.commands import sim

    return sim.run


def _bench() -> Callable[[Sequence[str]], int]:
    from brigade.commands import bench

    return bench.run


def _compare() -> Callable[[Sequence[str]], int]:
    from brigade.commands import compare

    return compare.run


def _plan() -> Callable[[Sequence[str]], int]:
    from brigade.commands import plan

    return plan.run


def _version() -> Callable[[Sequence[str]], int]:
    from brigade.commands import version

    return version.run


COMMANDS = {
    "up": Command(summary="start router, workers, balancer and, if need be, a Redis on this host", load=_up),
    "worker": Command(summary="start one more worker of an installation", load=_worker),
    "profile": Command(summary="measure this machine's engine and write its costs as a profile", load=_profile),
    "sim": Command(summary="simulate a scenario with the live policies", load=_sim),
    "bench": Command(summary="offer a workload to a live system and report what came", load=_bench),
    "compare": Command(summary="compare two results", load=_compare),
    "plan": Command(summary="find the cheapest cluster that holds a scenario's SLO", load=_plan),
    "version": Command(summary="print the version", load=_version),
}


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<10}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: brigade COMMAND [options]", "", *lines, "", "brigade COMMAND --help lists the options."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        name = "version"
    if name not in COMMANDS:
        print(f"brigade: unknown command {name!r}\n{usage()}", file=sys.stderr)
        return EXIT_WRONG_SETTING
    try:
        return COMMANDS[name].load()(rest)
    except BrigadeError as error:
        print(f"brigade {name}: {error}", file=sys.stderr)
        return EXIT_WRONG_SETTING


if __name__ == "__main__":
    sys.exit(main())
