"""Many runs of one scenario: rates × seeds, in one process or several. Ctrl-C keeps the runs that have ended."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from brigade.report.requests_csv import write_requests
from brigade.report.summary import RunSummary, summarise
from brigade.sim.result import SimResult
from brigade.sim.scenario import Scenario, WorkerSpec, load_scenario
from brigade.sim.simulator import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAsk:
    """One run to do. `rate_rps` and `workers` None are the scenario's own; `csv_path` takes all requests, where given."""

    seed: int
    rate_rps: float | None = None
    csv_path: str | None = None
    workers: tuple[WorkerSpec, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFound:
    """What one run has shown. `num_unfinished` requests had nobody left to serve them."""

    ask: RunAsk
    summary: RunSummary
    num_events: int
    num_unfinished: int


def run_one(scenario: Scenario, ask: RunAsk, on_progress: Callable[[int, int], None] | None = None) -> SimResult:
    """Simulate one run, with every request in memory."""
    if ask.workers is not None:
        scenario = replace(scenario, workers=ask.workers, failures=(), flips=())
    return simulate(at_rate(scenario, ask.rate_rps), seed=ask.seed, on_progress=on_progress)


def at_rate(scenario: Scenario, rate_rps: float | None) -> Scenario:
    """Return the scenario at another rate."""
    return scenario if rate_rps is None else replace(scenario, workload=scenario.workload.at_rate(rate_rps))


def found_of(ask: RunAsk, result: SimResult) -> RunFound:
    """Summarise one run, and write its requests where that was asked for."""
    timelines = list(result.timelines)
    if ask.csv_path is not None:
        write_requests(Path(ask.csv_path), timelines)
    return RunFound(
        ask=ask,
        summary=summarise(timelines),
        num_events=result.num_events,
        num_unfinished=result.num_unfinished,
    )


class Runner:
    """Does runs of one scenario, `processes` at a time. Runs come back in the order in which they were asked for."""

    def __init__(self, scenario: Scenario, pool: multiprocessing.pool.Pool | None) -> None:
        self.scenario = scenario
        self._pool = pool

    def run(self, asks: Sequence[RunAsk]) -> Iterator[RunFound]:
        """Yield each run as it has ended. Raises KeyboardInterrupt with what has been yielded intact."""
        if self._pool is not None:
            yield from self._pool.imap(_run_in_child, asks)
            return
        for ask in asks:
            result = run_one(self.scenario, ask)
            if result.was_interrupted:
                raise KeyboardInterrupt
            yield found_of(ask, result)


@contextmanager
def open_runner(scenario: Scenario, processes: int) -> Iterator[Runner]:
    """Start the processes; they end with the context, whatever they are doing."""
    if processes == 1:
        yield Runner(scenario, None)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_start_child, initargs=(scenario.path,)) as pool:
        yield Runner(scenario, pool)


_child_scenario: list[Scenario] = []
"""The scenario of a child process, read once at its start; empty in every other process."""


def _start_child(path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    _child_scenario.append(load_scenario(path))


def _run_in_child(ask: RunAsk) -> RunFound:
    return found_of(ask, run_one(_child_scenario[0], ask))
