"""The real services as processes, the real engine, over HTTP: the tokens are the reference's."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.greedy import assert_greedy

from brigade.engine.random_models import make_random_model

TOPOLOGIES = {
    "1P1D": ("prefill", "decode"),
    "2P2D": ("prefill", "prefill", "decode", "decode"),
    "mixed": ("mixed",),
    "1P1D+1M": ("prefill", "decode", "mixed"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("qwen3", tmp_path_factory.mktemp("models") / "qwen3-tiny")


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_crowd_of_mixed_lengths_gets_the_references_tokens(topology: str, model: Path, tmp_path: Path) -> None:
    """32 at once, lengths from 1 token to the context limit, with and without shared prefixes, chunked prefills."""
    rng = random.Random(7)
    shared = [rng.randrange(260, 512) for _ in range(64)]
    prompts = [[rng.randrange(260, 512) for _ in range(n)] for n in (1, 2, 15, 16, 17, 33, 100, 255, 300, 500)]
    prompts += [shared + [rng.randrange(260, 512) for _ in range(rng.randrange(1, 60))] for _ in range(10)]
    prompts += [[rng.randrange(260, 512) for _ in range(rng.randrange(1, 200))] for _ in range(12)]
    flags = ("--dtype", "float32", "--num-blocks", "400", "--max-batch-tokens", "128")
    async with Cluster(tmp_path, model, TOPOLOGIES[topology], worker_flags=flags) as cluster:
        answers = await asyncio.gather(
            *(cluster.complete(p, max_tokens=min(24, 512 - len(p)), ignore_eos=True) for p in prompts)
        )
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.error is None
        assert answer.finish_reason == "length"
        assert_greedy(model, prompt, answer.token_ids, num_expected=min(24, 512 - len(prompt)))


async def test_the_same_seed_gives_the_same_tokens_alone_and_in_a_crowd(model: Path, tmp_path: Path) -> None:
    asked = {"max_tokens": 20, "temperature": 1.0, "seed": 11, "ignore_eos": True}
    async with Cluster(tmp_path, model, TOPOLOGIES["1P1D"]) as cluster:
        alone = await cluster.complete([300, 301, 302], **asked)
        crowd = await asyncio.gather(
            *(cluster.complete([300 + i, 301, 302], **(asked | {"seed": 11 + i})) for i in range(12))
        )
    assert alone.token_ids == crowd[0].token_ids
    assert len({tuple(a.token_ids) for a in crowd}) == len(crowd)
