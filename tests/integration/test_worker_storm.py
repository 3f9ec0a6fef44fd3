"""Random installations with small pools and lost answers, hurt at random: every answer is right and every ledger balances."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from support.emulated_cluster import EmulatedCluster, LossyBus, Member, make_spec, random_prompt

from brigade.bus.leadership import Leadership
from brigade.core.messages import Role
from brigade.core.request import RequestSpec

pytestmark = pytest.mark.usefixtures("no_key_leaks")

P, D, M = Role.PREFILL, Role.DECODE, Role.MIXED
SHAPES = ((P, D), (M,), (M, M), (M, P), (M, D), (P, P, D, M))
LARGEST_REQUEST_TOKENS = 100
SMALLEST_POOL_BLOCKS = 26


def random_specs(chance: random.Random, num: int) -> list[RequestSpec]:
    """Requests of which some share their prompts, up to the size of the smallest pool."""
    specs = []
    for i in range(num):
        num_prompt_tokens = chance.choice([1, 3, 16, 30, 60])
        specs.append(
            make_spec(
                f"r{i}",
                random_prompt(num_prompt_tokens, chance.randint(0, 5)),
                max_tokens=chance.randint(1, LARGEST_REQUEST_TOKENS - num_prompt_tokens),
                temperature=float(i % 2),
                seed=i,
                priority_class=chance.choice(["interactive", "batch"]),
            )
        )
    return specs


async def hurt(cluster: EmulatedCluster, victim: Member, chance: random.Random) -> None:
    """Kill a worker and start another, replace it in good order, or change its role."""
    role = victim.life.roles.role
    match chance.choice(["kill", "replace", "flip"]):
        case "kill":
            await cluster.kill(victim)
            await cluster.add(role, num_blocks=SMALLEST_POOL_BLOCKS)
        case "replace":
            await cluster.add(role, num_blocks=SMALLEST_POOL_BLOCKS)
            victim.stop.begin()
            await victim.task
            await cluster.kill(victim)
        case _:
            leadership = Leadership(cluster.bus, "test", ttl_s=30)
            assert await leadership.renew()
            await leadership.set_role(victim.worker_id, Role.MIXED, highest_epoch=0)


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.evidence) for seed in range(6, 150))]
)
async def test_whatever_happens_answers_are_right(redis_url: str, installation: str, tmp_path: Path, seed: int) -> None:
    """The emulated engine turns any wrong, missing or garbled KV block into another answer."""
    chance = random.Random(seed)
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        for role in chance.choice(SHAPES):
            await cluster.add(
                role,
                num_blocks=chance.choice([SMALLEST_POOL_BLOCKS, 30, 40, 64]),
                max_batch_tokens=chance.choice([16, 64, 300]),
                max_num_seqs=chance.choice([1, 2, 8]),
                is_staging=chance.random() < 0.3,
                bus=LossyBus(redis_url, installation, lose=0.1, seed=seed) if chance.random() < 0.3 else None,
            )
        specs = random_specs(chance, 24)
        answers = await cluster.ask(*specs)
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(chance.random() * 0.2)  # a random moment, not a condition
            await hurt(cluster, chance.choice(cluster.members), chance)
        await cluster.check(specs, answers, deadline_s=25)
