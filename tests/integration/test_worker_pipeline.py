"""Whole worker hosts with emulated engines: what a request's tokens are, whichever way it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.emulated_cluster import EmulatedCluster, make_spec, random_prompt

from brigade.core.messages import Role

pytestmark = pytest.mark.usefixtures("no_key_leaks")


@pytest.fixture
async def cluster(redis_url: str, installation: str, tmp_path: Path) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster
    assert not list(tmp_path.glob("*.kv")), "a KV pool is left behind"


async def test_one_request_goes_from_prefill_to_decode(cluster: EmulatedCluster) -> None:
    """The oracle of everything: the answer over two workers equals that of one engine alone."""
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    [answer] = await cluster.ask_and_check(make_spec("r", random_prompt(21, 1), max_tokens=10))
    assert (len(answer.token_ids), answer.finish_reason) == (10, "length")
