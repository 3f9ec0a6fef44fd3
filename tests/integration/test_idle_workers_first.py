"""A new job goes to a worker that can begin it now, not to one that would let it wait behind its running step."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.emulated_cluster import EmulatedCluster, make_spec, random_prompt
from support.waiting import wait_until

from brigade.core.messages import Role
from brigade.core.step import Sampled, Slice
from brigade.engine.emulated import EmulatedEngine
from brigade.policies import claim_order

pytestmark = pytest.mark.usefixtures("no_key_leaks")

LONG = 50


@pytest.fixture
async def cluster(redis_url: str, installation: str, tmp_path: Path) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster


async def test_a_busy_worker_leaves_new_jobs_to_idle_ones(
    cluster: EmulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hear of a job at once. While one worker is held in a long step, ten jobs in turn are all answered by the other."""
    monkeypatch.setattr(claim_order, "FIRST_YIELD_S", 1.0)
    gate, is_held = threading.Event(), threading.Event()

    class Held(EmulatedEngine):
        def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
            if any(len(item.token_ids) >= LONG for item in slices):
                is_held.set()
                assert gate.wait(30)
            return super().step(slices)

    for role in (Role.PREFILL, Role.PREFILL, Role.DECODE):
        await cluster.add(role, engine_type=Held)
    await wait_until(
        lambda: all(m.life.prefill.targets.num_prefilling_workers() == 2 for m in cluster.members), what=""
    )
    long_spec = make_spec("long", random_prompt(LONG, 0))
    try:
        held = await cluster.ask(long_spec)
        await wait_until(is_held.is_set, what="one worker is in its long step")
        for number in range(10):
            await cluster.ask_and_check(make_spec(f"short{number}", random_prompt(5, 1 + number), max_tokens=2))
        assert not held[0].has_ended
    finally:
        gate.set()
    await cluster.check([long_spec], held)
