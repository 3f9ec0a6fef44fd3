"""What holds for every run, whatever the cluster, the workload and the faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from random_scenarios import Case, cases

from brigade.core.timeline import SLO, RequestTimeline, attainment
from brigade.policies.cost_model import CostModel, PrefillPart
from brigade.sim.result import SimResult
from brigade.sim.simulator import Simulator
from brigade.sim.worker import WorkerState

FEW = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
MORE = settings(FEW, max_examples=60)


def run(case: Case, *, skips: bool = True, takes_blocks: bool = False) -> tuple[Simulator, SimResult]:
    sim = Simulator(case.scenario, case.requests, skips=skips, takes_blocks=takes_blocks)
    return sim, sim.run()


@given(cases())
@MORE
def test_skipping_equals_plain_stepping_exactly(case: Case) -> None:
    """Jumping over equal decode steps changes no stamp of any request, whatever else happens meanwhile."""
    (_, fast), (_, plain) = run(case), run(case, skips=False)
    assert list(fast.timelines) == list(plain.timelines)
    assert fast.flips == plain.flips
    assert fast.num_steps == plain.num_steps


@given(cases())
@MORE
def test_no_request_is_lost_and_ledgers_end_at_zero(case: Case) -> None:
    """Every request ends once, complete unless it was refused; then no worker holds, promises or lends a block."""
    sim, result = run(case)
    assert [t.arrival_ns for t in result.timelines] == [work.arrival_ns for work in case.requests]
    for work, timeline in zip(case.requests, result.timelines, strict=True):
        assert (timeline.isl, timeline.priority_class) == (work.isl, work.priority_class)
        if not timeline.is_complete:
            continue
        assert timeline.osl == work.osl
        assert_in_order(timeline)
    if result.num_unfinished:
        return  # nobody was left to serve them: they still hold what they held
    for worker in sim.workers:
        assert worker.is_idle or worker.state is WorkerState.DEAD
        assert worker.pool.ledger.is_idle, worker.pool.ledger.counts()
        assert worker.pool.num_lent == 0
        worker.pool.ledger.check()
        assert (worker.num_unstarted_tokens, worker.num_unstarted_blocks, worker.num_held_blocks) == (0, 0, 0)
        assert worker.num_context_tokens == 0


def assert_in_order(timeline: RequestTimeline) -> None:
    stamps = [
        timeline.arrival_ns,
        timeline.claimed_ns,
        timeline.first_token_ns,
        timeline.decoding_ns,
        timeline.last_token_ns,
    ]
    present = [stamp for stamp in stamps if stamp is not None]
    assert present == sorted(present)
    assert (timeline.decoding_ns is None) <= (timeline.osl == 1 or timeline.attempts > 1)


@given(cases(with_faults=False, with_flips=False))
@FEW
def test_without_faults_everything_completes_in_one_attempt(case: Case) -> None:
    """Nobody waits for ever for blocks that others hold."""
    _, result = run(case)
    assert all(t.is_complete or t.refused for t in result.timelines)
    assert all(t.attempts == 1 for t in result.timelines)


class CountingCosts:
    """A cost model that counts the tokens that it prices."""

    def __init__(self, costs: CostModel) -> None:
        self.name, self.kv_capacity_tokens = costs.name, costs.kv_capacity_tokens
        self.costs, self.num_prefill, self.num_decode = costs, 0, 0

    def prefill_ns(self, parts: Sequence[PrefillPart]) -> int:
        self.num_prefill += sum(part.num_new_tokens for part in parts)
        return self.costs.prefill_ns(parts)

    def decode_step_ns(self, batch: int, num_context_tokens: int) -> int:
        return self.costs.decode_step_ns(batch, num_context_tokens)

    def decode_run_ns(self, batch: int, num_context_tokens: int, num_steps: int) -> int:
        self.num_decode += batch * num_steps
        return self.costs.decode_run_ns(batch, num_context_tokens, num_steps)

    def mixed_step_ns(self, parts: Sequence[PrefillPart], batch: int, num_context_tokens: int) -> int:
        self.num_prefill += sum(part.num_new_tokens for part in parts)
        self.num_decode += batch
        return self.costs.mixed_step_ns(parts, batch, num_context_tokens)

    def kv_transfer_ns(self, num_tokens: int) -> int:
        return self.costs.kv_transfer_ns(num_tokens)


@given(cases(with_faults=False))
@FEW
def test_work_is_conserved(case: Case) -> None:
    """Every prompt token that the cache did not have is computed once, and every token after the first."""
    sim = Simulator(case.scenario, case.requests, skips=False)
    counting = [CountingCosts(worker.costs) for worker in sim.workers]
    for worker, costs in zip(sim.workers, counting, strict=True):
        worker.costs = costs
    result = sim.run()
    if result.num_unfinished:
        return
    complete = [t for t in result.timelines if t.is_complete]
    assert sum(costs.num_prefill for costs in counting) == sum(t.isl - t.num_cached_tokens for t in complete)
    assert sum(costs.num_decode for costs in counting) == sum(t.osl - 1 for t in complete)


@given(cases(with_prefixes=False, with_faults=False))
@FEW
def test_promises_equal_blocks_where_nothing_is_shared(case: Case) -> None:
    """Counting blocks and choosing them lead to the same decisions when no two prompts can match."""
    (_, counted), (_, chosen) = run(case), run(case, takes_blocks=True)
    assert list(counted.timelines) == list(chosen.timelines)


@given(cases(with_faults=False, with_flips=False))
@FEW
def test_attainment_is_monotone_in_the_slo(case: Case) -> None:
    """A looser target is never harder to meet."""
    _, result = run(case)
    before = 0.0
    for factor in (0.1, 0.5, 1.0, 3.0, 1e9):
        slo = SLO(ttft_s=0.05 * factor, tpot_s=0.008 * factor)
        now = attainment([replace(timeline, slo=slo) for timeline in result.timelines])
        assert now >= before
        before = now
