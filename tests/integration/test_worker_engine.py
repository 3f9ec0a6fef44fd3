"""Whole worker hosts with the real engine in this process: the tokens are the reference's, whatever way the KV takes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.emulated_cluster import Answer, EmulatedCluster, make_spec
from support.greedy import assert_greedy
from support.waiting import wait_until

from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from brigade.engine.load import block_bytes, load_engine, model_info
from brigade.engine.random_models import make_random_model
from services.worker.loading import LAYOUT
from services.worker.machine import Machine, make_machine, new_threads

pytestmark = pytest.mark.usefixtures("no_key_leaks")

NUM_BLOCKS = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")


def load(cluster: EmulatedCluster, model: Path, *, is_staging: bool) -> Machine:
    """A machine on the CPU; `is_staging` treats its pool as memory of a device, which no other process can map."""
    arena = cluster.make_arena(NUM_BLOCKS, block_bytes(model_info(model, "float32"), 16))
    engine = load_engine(
        model,
        dtype="float32",
        device="cpu",
        num_blocks=NUM_BLOCKS,
        pool=None if is_staging else arena.data,
        attention="sdpa",
    )
    return make_machine(engine, arena=arena, is_staging=is_staging, layout=LAYOUT, threads=new_threads())


@pytest.mark.parametrize(
    ("roles", "is_staging"), [(("prefill", "decode"), False), (("prefill", "decode"), True), (("mixed",), False)]
)
async def test_answers_are_the_references(
    redis_url: str, installation: str, tmp_path: Path, model: Path, roles: tuple[str, ...], is_staging: bool
) -> None:
    """Chunks, shared prefixes, KV that is copied, staged or kept: none of it shows in the tokens."""
    rng = random.Random(3)
    shared = [rng.randrange(260, 512) for _ in range(40)]
    prompts = [[rng.randrange(260, 512) for _ in range(n)] for n in (1, 16, 17, 90, 200)]
    prompts += [[*shared, *(rng.randrange(260, 512) for _ in range(n))] for n in (1, 9, 30)]
    specs: list[RequestSpec] = [make_spec(f"r{i}", prompt, max_tokens=20) for i, prompt in enumerate(prompts)]
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        for role in roles:
            machine = load(cluster, model, is_staging=is_staging)
            await cluster.start(machine, Role(role), max_batch_tokens=64, max_num_seqs=16, bus=cluster.make_bus())
        answers: list[Answer] = await cluster.ask(*specs)
        await wait_until(lambda: all(answer.has_ended for answer in answers), deadline_s=30, what="all answers end")
    for spec, answer in zip(specs, answers, strict=True):
        assert answer.error is None
        assert_greedy(model, spec.prompt_token_ids, answer.token_ids, num_expected=20)
