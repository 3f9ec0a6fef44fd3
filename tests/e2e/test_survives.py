"""Processes are killed and paused under load: every request finishes, and its tokens are an undisturbed run's."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.cluster import Answer, Cluster
from support.greedy import assert_greedy
from support.waiting import wait_until

from brigade.engine.random_models import make_random_model

TTL_S = 1.0
OUTPUT_TOKENS = 200
NUM_CLIENTS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")


class Load:
    """Clients that ask one request after the other until told to stop."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._stop = False
        self.num_started = 0
        self.results: list[tuple[list[int], Answer]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(NUM_CLIENTS):
                clients.create_task(self._client())

    def stop(self) -> None:
        self._stop = True

    async def _client(self) -> None:
        while not self._stop:
            prompt = [self._rng.randrange(260, 512) for _ in range(self._rng.choice((1, 20, 90, 250)))]
            self.num_started += 1
            answer = await self._cluster.complete(prompt, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
            self.results.append((prompt, answer))


async def kill_prefill(cluster: Cluster, rng: random.Random) -> None:
    cluster.kill(rng.choice(cluster.names("prefill")))
    cluster.start_worker("prefill")


async def kill_decode(cluster: Cluster, rng: random.Random) -> None:
    cluster.kill(rng.choice(cluster.names("decode")))
    cluster.start_worker("decode")


async def kill_balancer(cluster: Cluster, rng: random.Random) -> None:
    cluster.kill(cluster.names("balancer")[0])
    name = f"balancer-{rng.randrange(10**6)}"
    cluster.start(name, "services.balancer")
    await wait_until(lambda: '"leads"' in cluster.log_of(name), 30, "another leader")


async def pause(cluster: Cluster, name: str) -> None:
    """Stop a process for longer than its heartbeat counts: it wakes up as a zombie."""
    cluster.signal(name, signal.SIGSTOP)
    worker = name

    async def noticed() -> bool:
        return not any(w["worker_id"].startswith(worker + ".") for w in await cluster.live_workers())

    await wait_until(noticed, 20, f"that {name} is missed")
    cluster.signal(name, signal.SIGCONT)

    async def back() -> bool:
        return any(w["worker_id"].startswith(worker + ".") for w in await cluster.live_workers())

    await wait_until(back, 20, f"that {name} is back")


async def pause_prefill(cluster: Cluster, rng: random.Random) -> None:
    await pause(cluster, rng.choice(cluster.names("prefill")))


async def pause_decode(cluster: Cluster, rng: random.Random) -> None:
    await pause(cluster, rng.choice(cluster.names("decode")))


async def drain_decode(cluster: Cluster, rng: random.Random) -> None:
    """SIGTERM: what runs there is finished, and the process leaves with status 0."""
    name = rng.choice(cluster.names("decode"))
    process = cluster.processes.pop(name)
    process.send_signal(signal.SIGTERM)
    cluster.start_worker("decode")
    assert await asyncio.to_thread(process.wait, 40) == 0


async def flip_there_and_back(cluster: Cluster, rng: random.Random) -> None:
    """An operator changes a worker's role while it works, and changes it back."""
    worker = rng.choice(await cluster.live_workers())
    before = worker["role"]
    for role in ("decode" if before == "prefill" else "prefill", before):
        await cluster.set_role(worker["worker_id"], role)


async def restart_redis(cluster: Cluster, rng: random.Random) -> None:
    await asyncio.to_thread(cluster.redis.restart)


Disturbance = Callable[[Cluster, random.Random], Awaitable[None]]
DISTURBANCES: tuple[Disturbance, ...] = (
    kill_prefill,
    kill_decode,
    kill_balancer,
    pause_prefill,
    pause_decode,
    drain_decode,
    flip_there_and_back,
    restart_redis,
)


async def disturbed_run(cluster: Cluster, disturbances: list[Disturbance], rng: random.Random) -> Load:
    """Let clients ask all the time, hurt the installation at random moments, and let the last request finish."""
    load = Load(cluster, rng)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(load.run())
        for disturb in disturbances:
            # a random moment, told by work done rather than by time
            target = len(load.results) + rng.randrange(3, 15)
            await wait_until(lambda t=target: len(load.results) >= t or running.done(), 120, "progress")
            await disturb(cluster, rng)
            await cluster.wait_ready()
        load.stop()
    return load


def check(load: Load, model: Path, errors_allowed: int = 0) -> None:
    errors = [answer.error for _, answer in load.results if answer.error is not None]
    assert len(errors) <= errors_allowed, errors
    assert len(load.results) == load.num_started
    for prompt, answer in load.results:
        if answer.error is None:
            assert answer.finish_reason == "length"
            assert_greedy(model, prompt, answer.token_ids, num_expected=OUTPUT_TOKENS)


@pytest.mark.parametrize("disturbance", DISTURBANCES[:-1], ids=lambda d: d.__name__)
async def test_no_token_is_lost_or_repeated(disturbance: Disturbance, model: Path, tmp_path: Path) -> None:
    """Two of one kind of disturbance under load; the whole series is `make evidence`."""
    rng = random.Random(disturbance.__name__)
    async with Cluster(tmp_path, model, ("prefill", "prefill", "decode", "decode")) as cluster:
        load = await disturbed_run(cluster, [disturbance, disturbance][: 1 + (disturbance is not kill_balancer)], rng)
    check(load, model)


async def test_a_restart_of_redis_hangs_no_client(model: Path, tmp_path: Path) -> None:
    """Requests that were accepted finish with the right tokens; those asked while Redis was away may get 503."""
    rng = random.Random(3)
    async with Cluster(tmp_path, model, ("prefill", "decode")) as cluster:
        load = await disturbed_run(cluster, [restart_redis, restart_redis], rng)
    refused = [answer for _, answer in load.results if answer.error is not None]
    assert all(answer.status == 503 for answer in refused), [answer.error for answer in refused]
    check(load, model, errors_allowed=len(refused))
    assert len(load.results) - len(refused) >= NUM_CLIENTS


@pytest.mark.evidence
@pytest.mark.parametrize("seed", range(int(os.environ.get("EVIDENCE_SEEDS", "8"))))
async def test_no_token_is_lost_or_repeated_in_a_long_series(seed: int, model: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    series = [rng.choice(DISTURBANCES[:-1]) for _ in range(15)]
    async with Cluster(tmp_path, model, ("prefill", "prefill", "decode", "decode")) as cluster:
        load = await disturbed_run(cluster, series, rng)
    check(load, model)
