"""Random small clusters and workloads, with everything that may go wrong in them, for hypothesis."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from brigade.core.messages import Role
from brigade.core.request import PRIORITY_CLASSES
from brigade.core.timeline import SLO
from brigade.policies.cost_forms import (
    DecodeRegime,
    LinearDecode,
    PrefillCosts,
    StepCosts,
    TransferCosts,
    line,
)
from brigade.policies.piecewise import fixed
from brigade.sim.scenario import FailureSpec, FlipSpec, Scenario, WorkerSpec
from brigade.workload import WorkloadRequest, WorkloadSpec
from brigade.workload.spec import FixedLengths, MixPart, SLOSpec

MS = 1_000_000


@dataclass(frozen=True)
class Case:
    scenario: Scenario
    requests: tuple[WorkloadRequest, ...]


def linear_costs(name: str, *, base_ms: float = 10.0, is_round: bool = False) -> StepCosts:
    """Make a small model. A round one makes events of different workers meet at the same nanosecond."""
    slopes = (0.0, 0.0, 0.0) if is_round else (61_234.5, 117.77, 30_001.3)
    return StepCosts(
        name=name,
        kv_capacity_tokens=4096,
        prefill=PrefillCosts(by_tokens=line(base_ms * MS, slopes[0]), per_attention=fixed(0.7)),
        decode=LinearDecode(
            [
                DecodeRegime(
                    min_batch=1, base=fixed(5 * MS), per_context_token=fixed(slopes[1]), per_sequence=fixed(slopes[2])
                ),
                DecodeRegime(
                    min_batch=4, base=fixed(4 * MS), per_context_token=fixed(slopes[1]), per_sequence=fixed(slopes[2])
                ),
            ]
        ),
        transfer=TransferCosts(
            latency_ns=0 if is_round else 50_000, bytes_per_s=10**10, bytes_per_token=0 if is_round else 10**5
        ),
    )


@st.composite
def cases(draw: st.DrawFn, *, with_faults: bool = True, with_prefixes: bool = True, with_flips: bool = True) -> Case:
    """Draw a cluster of 1 to 5 workers that can serve, and up to 25 requests."""
    is_round = draw(st.booleans())
    profiles = {
        "fast": linear_costs("fast", is_round=is_round),
        "slow": linear_costs("slow", base_ms=20.0, is_round=is_round),
    }
    roles = draw(
        st.sampled_from(
            [
                (Role.PREFILL, Role.DECODE),
                (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE),
                (Role.MIXED,),
                (Role.MIXED, Role.MIXED),
                (Role.PREFILL, Role.MIXED, Role.DECODE),
            ]
        )
    )
    workers = tuple(
        WorkerSpec(
            worker_id=f"{role.value[0]}{number}",
            role=role,
            profile=draw(st.sampled_from(["fast", "slow"])),
            num_blocks=draw(st.sampled_from([24, 40, 200])),
            max_batch_tokens=draw(st.sampled_from([16, 100, 2048])),
            max_num_seqs=draw(st.sampled_from([1, 3, 64])),
            slowdown=draw(st.sampled_from([1.0, 1.0, 1.7])),
            start_s=draw(st.sampled_from([0.0, 0.0, 0.5])),
        )
        for number, role in enumerate(roles)
    )
    names = [worker.worker_id for worker in workers]
    failures: tuple[FailureSpec, ...] = ()
    flips: tuple[FlipSpec, ...] = ()
    if with_faults:
        failures = tuple(
            FailureSpec(
                worker_id=name, at_s=draw(st.integers(1, 300)) / 100, back_after_s=draw(st.sampled_from([0.5, 5.0]))
            )
            for name in draw(st.lists(st.sampled_from(names), max_size=3))
        )
    if with_flips:
        flips = tuple(
            FlipSpec(worker_id=name, role=draw(st.sampled_from(list(Role))), at_s=draw(st.integers(1, 300)) / 100)
            for name in draw(st.lists(st.sampled_from(names), max_size=3))
        )
    scenario = Scenario(
        name="random",
        path="random",
        seed=0,
        workload=_workload(with_prefixes),
        workers=workers,
        profiles=profiles,
        block_size_tokens=16,
        batching="class-priority-arrival",
        placement="least-busy",
        heartbeat_interval_s=draw(st.sampled_from([0.05, 0.5])),
        heartbeat_ttl_s=1.0,
        max_attempts=50,
        max_model_len_tokens=384,
        hand_over_s=draw(st.sampled_from([0.0, 0.003])),
        host_step_s=draw(st.sampled_from([None, 0.001])),
        failures=failures,
        flips=flips,
    )
    return Case(scenario=scenario, requests=tuple(_requests(draw, with_prefixes, is_round)))


def _workload(with_prefixes: bool) -> WorkloadSpec:
    """Only says whether prefixes are shared; the requests are given."""
    part = MixPart(
        name="any",
        share=1.0,
        priority_class="standard",
        lengths=FixedLengths(isl=1, osl=1),
        num_groups=1 if with_prefixes else 0,
        prefix_tokens=1 if with_prefixes else 0,
    )
    return WorkloadSpec(arrivals="burst", num_requests=1, mix=(part,), slo={"": SLOSpec()}, prefix_block_tokens=32)


def _requests(draw: st.DrawFn, with_prefixes: bool, is_round: bool) -> list[WorkloadRequest]:
    unit_ns = 5 * MS if is_round else 777_777
    arrivals = sorted(draw(st.lists(st.integers(0, 400), min_size=1, max_size=25)))
    requests = []
    for arrival in arrivals:
        isl = draw(st.integers(1, 300))
        prefix_ids: tuple[int, ...] = ()
        if with_prefixes:
            group = draw(st.integers(0, 2))
            prefix_ids = tuple(range(100 * group, 100 * group + draw(st.integers(0, isl // 32))))
        requests.append(
            WorkloadRequest(
                arrival_ns=arrival * unit_ns,
                isl=isl,
                osl=draw(st.integers(1, 84)),
                priority_class=draw(st.sampled_from(PRIORITY_CLASSES)),
                prefix_ids=prefix_ids,
                slo=SLO(
                    ttft_s=draw(st.sampled_from([None, 0.05, 0.5])), tpot_s=draw(st.sampled_from([None, 0.008, 0.02]))
                ),
            )
        )
    return requests
