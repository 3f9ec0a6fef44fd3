"""The cheapest cluster that holds a workload's SLO, by simulating every split of every number of GPUs, smallest first.

Workers of a role are like the scenario's first worker of that role; a mixed worker is like its first mixed worker, or its first
decode worker where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from brigade.core.messages import Role
from brigade.sim.goodput import Goodput, GoodputSearch, RatePoint, rate_point
from brigade.sim.scenario import Scenario, WorkerSpec
from brigade.sim.study import RunAsk, Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A cluster: either so many of each of two roles, or mixed workers only."""

    num_prefill: int
    num_decode: int
    num_mixed: int
    workers: tuple[WorkerSpec, ...]
    num_gpus: int

    def __str__(self) -> str:
        return f"{self.num_mixed} mixed" if self.num_mixed else f"{self.num_prefill}P{self.num_decode}D"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One split at the workload's own rate."""

    split: Split
    point: RatePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`best` is None where no cluster up to the limit holds the target. The goodputs are of the best disaggregated and of the
    mixed cluster of the same size: None where there is none of the kind."""

    target: float
    best: Tried | None
    tried: tuple[Tried, ...]
    disaggregated: tuple[Split, Goodput] | None
    aggregated: tuple[Split, Goodput] | None

    @property
    def margin(self) -> float | None:
        """Return the goodput of disaggregation over that of aggregation, less 1."""
        if self.disaggregated is None or self.aggregated is None or not self.aggregated[1].rate_rps:
            return None
        return self.disaggregated[1].rate_rps / self.aggregated[1].rate_rps - 1


def splits(scenario: Scenario, num_gpus: int) -> Iterator[Split]:
    """Yield every cluster of exactly so many GPUs."""
    prefill = next(worker for worker in scenario.workers if worker.role.prefills)
    decode = next(worker for worker in scenario.workers if worker.role.decodes)
    mixed = next((worker for worker in scenario.workers if worker.role is Role.MIXED), decode)
    sizes = [scenario.profiles[worker.profile].num_gpus for worker in (prefill, decode, mixed)]
    if num_gpus % sizes[2] == 0:
        num = num_gpus // sizes[2]
        yield Split(num_prefill=0, num_decode=0, num_mixed=num, workers=_of(mixed, Role.MIXED, num), num_gpus=num_gpus)
    for num_prefill in range(1, num_gpus // sizes[0] + 1):
        num_decode, rest = divmod(num_gpus - num_prefill * sizes[0], sizes[1])
        if num_decode and not rest:
            workers = _of(prefill, Role.PREFILL, num_prefill) + _of(decode, Role.DECODE, num_decode)
            yield Split(num_prefill=num_prefill, num_decode=num_decode, num_mixed=0, workers=workers, num_gpus=num_gpus)


def make_plan(
    runner: Runner,
    seeds: Sequence[int],
    *,
    target: float,
    rate_rps: float,
    max_gpus: int,
    on_tried: Callable[[Tried], None] | None = None,
) -> Plan:
    """Try every split, from one GPU up to `max_gpus`; compare the best with aggregation at its size."""
    tried: list[Tried] = []
    best: Tried | None = None
    last: list[Tried] = []
    for num_gpus in range(1, max_gpus + 1):
        last = []
        for split in splits(runner.scenario, num_gpus):
            runs = list(runner.run([RunAsk(seed=seed, workers=split.workers) for seed in seeds]))
            last.append(Tried(split=split, point=rate_point(rate_rps, runs)))
            if on_tried is not None:
                on_tried(last[-1])
        tried += last
        best = max((t for t in last if t.point.attainment >= target), key=lambda t: t.point.attainment, default=None)
        if best is not None:
            break
    kinds: list[tuple[Split, Goodput] | None] = []
    for is_mixed in (False, True):
        candidates = [t for t in last if bool(t.split.num_mixed) == is_mixed]
        if not candidates:
            kinds.append(None)
            continue
        split = max(candidates, key=lambda t: t.point.attainment).split
        search = GoodputSearch(runner, seeds, workers=split.workers)
        kinds.append((split, search.goodput(target, rate_rps)))
    return Plan(target=target, best=best, tried=tuple(tried), disaggregated=kinds[0], aggregated=kinds[1])


def _of(worker: WorkerSpec, role: Role, count: int) -> tuple[WorkerSpec, ...]:
    return tuple(
        replace(worker, worker_id=f"{role.value[0]}{number}", role=role, start_s=0.0, slowdown=1.0)
        for number in range(count)
    )
