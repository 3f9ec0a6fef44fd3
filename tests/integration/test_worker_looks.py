"""How often a worker looks at the queue: looks are scripts over all streams, and a step gives many occasions for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.emulated_cluster import TIMING, EmulatedCluster, make_spec, random_prompt
from support.waiting import wait_until

from brigade.bus.client import Argument, Bus
from brigade.core.messages import Role


class CountingBus(Bus):
    """Counts looks at the queue, and the answers of the stream that tells of new jobs."""

    def __init__(self, url: str, installation: str) -> None:
        super().__init__(url, installation, block_ms=TIMING.block_ms)
        self.num_looks = 0
        self.num_calls = 0

    async def run(self, script: str, *args: Argument, timeout_s: float | None = None) -> Any:
        self.num_looks += script == "window"
        return await super().run(script, *args, timeout_s=timeout_s)

    async def read(
        self, key: str, cursor: str, *, count: int, block_ms: int | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        entries = await super().read(key, cursor, count=count, block_ms=block_ms)
        self.num_calls += key == self.keys.wake
        return entries


@pytest.fixture
async def cluster(
    no_key_leaks: None, redis_url: str, installation: str, tmp_path: Path
) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster


async def test_an_empty_queue_is_looked_at_only_when_something_may_have_been_queued(
    cluster: EmulatedCluster, redis_url: str, installation: str
) -> None:
    """Room that comes free is no reason to look where nothing waits; a new job is still found at once."""
    bus = CountingBus(redis_url, installation)
    member = await cluster.add(Role.MIXED, bus=bus)
    for number in range(3):
        spec = make_spec(f"r{number}", random_prompt(9, number))
        [answer] = await cluster.ask(spec)
        await cluster.check([spec], [answer])
    await wait_until(lambda: member.life.is_idle)
    looks, calls = bus.num_looks, bus.num_calls
    for _ in range(50):
        member.machine.pool.on_room()
        await bus.command("PING")  # time for the claiming task to act on it
    # one look may have been under way before each count
    assert bus.num_looks - looks <= bus.num_calls - calls + 1
