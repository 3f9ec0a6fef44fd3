"""Which role wishes are carried out: never an empty pool, never two flips of one worker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from brigade.core.messages import Role, RoleIntent, WorkerStatus, WorkerView
from brigade.policies.role_intents import Verdict, decide_intent


def worker(worker_id: str, role: Role, *, alive: bool = True) -> WorkerView:
    status = WorkerStatus(
        worker_id=worker_id, host="h", pid=1, model="m", model_revision="r", num_blocks=8, block_size_tokens=16
    )
    return WorkerView(worker_id=worker_id, role=role, epoch=1, accepting=True, status=status if alive else None)


P1, P2, D1 = worker("p1", Role.PREFILL), worker("p2", Role.PREFILL), worker("d1", Role.DECODE)


def verdict(workers: list[WorkerView], worker_id: str, role: Role) -> Verdict:
    return decide_intent(workers, RoleIntent(worker_id=worker_id, role=role)).verdict


def test_a_flip_that_leaves_both_pools_served_is_accepted() -> None:
    assert verdict([P1, P2, D1], "p1", Role.DECODE) is Verdict.ACCEPTED


@pytest.mark.parametrize(("worker_id", "role"), [("p1", Role.DECODE), ("d1", Role.PREFILL)])
def test_a_pool_is_never_emptied(worker_id: str, role: Role) -> None:
    assert verdict([P1, D1], worker_id, role) is Verdict.REFUSED


def test_mixed_serves_both_pools() -> None:
    assert verdict([P1, D1], "p1", Role.MIXED) is Verdict.ACCEPTED
    assert verdict([worker("m", Role.MIXED)], "m", Role.PREFILL) is Verdict.REFUSED


def test_a_dead_worker_does_not_keep_a_pool_alive() -> None:
    assert verdict([P1, worker("p2", Role.PREFILL, alive=False), D1], "p1", Role.DECODE) is Verdict.REFUSED


def test_unknown_and_dead_workers_are_told_apart_from_refusals() -> None:
    assert verdict([P1, D1], "nobody", Role.DECODE) is Verdict.UNKNOWN
    assert verdict([P1, worker("d1", Role.DECODE, alive=False)], "d1", Role.PREFILL) is Verdict.UNKNOWN


def test_the_same_role_and_a_second_flip_are_refused() -> None:
    assert verdict([P1, P2, D1], "p1", Role.PREFILL) is Verdict.REFUSED
    flipping = replace(P1, desired_role=Role.DECODE, desired_epoch=2)
    assert verdict([flipping, P2, D1], "p1", Role.MIXED) is Verdict.REFUSED
    leaving = replace(P1, accepting=False)
    assert verdict([leaving, P2, D1], "p1", Role.DECODE) is Verdict.REFUSED
