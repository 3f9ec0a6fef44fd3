"""Clean: after a thousand requests, clients that leave at random and a killed worker, nothing is left anywhere."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from support.cluster import Answer, Cluster
from support.greedy import assert_greedy
from support.key_leaks import leaked_keys
from support.waiting import wait_until

from brigade.bus.keys import DECODE_GROUP, PREFILL_GROUP, Keys
from brigade.core.request import TERMINAL_STATES
from brigade.engine.random_models import make_random_model

NUM_REQUESTS = 1000
NUM_CLIENTS = 40
NUM_BLOCKS = 96  # too few for all clients at once, so that some leave while they are queued
NUM_RECLAIMS = 5
NUM_LEAVING = 6
RECLAIM_BOUND_S = 5.0  # a heartbeat and a step are 0.25 s on an idle machine
NUM_COMPARED = 40
ROLES = ("prefill", "prefill", "decode", "decode")

WORK_COUNTS = ("num_lent_blocks", "num_reserved_blocks", "num_prefilling", "num_waiting_decode", "num_decoding")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")


class Clients:
    """Ask `NUM_REQUESTS` times in all. Half of the answers are awaited; the others' clients leave at random."""

    def __init__(self, cluster: Cluster, model: Path, rng: random.Random) -> None:
        self._cluster = cluster
        self._model = model
        self._rng = rng
        self._num_left = NUM_REQUESTS
        self.num_done = 0
        self.outcomes: Counter[str] = Counter()
        self.answers: list[tuple[list[int], int, Answer]] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(NUM_CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        behaviours = (self._stay, self._stay, self._leave_after_tokens, self._leave_whenever)
        while self._num_left > 0:
            self._num_left -= 1
            prompt = [self._rng.randrange(260, 512) for _ in range(self._rng.choice((1, 20, 64, 150)))]
            await self._rng.choice(behaviours)(prompt, self._rng.randrange(1, 60))
            self.num_done += 1

    async def _stay(self, prompt: list[int], max_tokens: int) -> None:
        answer = await self._cluster.complete(prompt, max_tokens=max_tokens, ignore_eos=True)
        self.answers.append((prompt, max_tokens, answer))
        self.outcomes["answered"] += 1

    async def _leave_after_tokens(self, prompt: list[int], max_tokens: int) -> None:
        num_read = self._rng.randrange(1, 20)
        events = self._cluster.stream(prompt, max_tokens=max_tokens, ignore_eos=True)
        async with aclosing(events):
            async for _ in events:
                num_read -= 1
                if not num_read:
                    break
        self.outcomes["ended" if num_read else "left while it ran"] += 1

    async def _leave_whenever(self, prompt: list[int], max_tokens: int) -> None:
        stream = self._rng.random() < 0.5
        had_token = False
        try:
            async with asyncio.timeout(0.4 * self._rng.random() ** 2):
                if stream:
                    async for _ in self._cluster.stream(prompt, max_tokens=max_tokens, ignore_eos=True):
                        had_token = True
                else:
                    await complete_whole(self._cluster, self._model, prompt, max_tokens)
        except TimeoutError:
            how = "while it ran" if had_token else "before a token" if stream else "and was not streaming"
            self.outcomes[f"left {how}"] += 1
        else:
            self.outcomes["ended"] += 1


async def complete_whole(cluster: Cluster, model: Path, prompt: list[int], max_tokens: int) -> None:
    """Ask without streaming and read the answer."""
    body = orjson.dumps({"model": model.name, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True})
    headers = {"Content-Type": "application/json"}
    async with cluster.http.post(f"{cluster.url}/v1/completions", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert orjson.loads(await response.read())["usage"]["completion_tokens"] == max_tokens


async def balance(cluster: Cluster) -> list[dict[str, Any]]:
    """Return the workers that hold something."""
    return [
        worker
        for worker in await cluster.live_workers()
        if worker["num_free_blocks"] != worker["num_blocks"] or any(worker[name] for name in WORK_COUNTS)
    ]


async def wait_for_balance(cluster: Cluster, deadline_s: float) -> None:
    """Return when every worker says that it holds nothing."""

    async def is_balanced() -> bool:
        return not await balance(cluster)

    try:
        await wait_until(is_balanced, deadline_s, "balance")
    except AssertionError:
        raise AssertionError(f"workers that still hold something: {await balance(cluster)}") from None


def leftovers(client: redis.Redis, keys: Keys) -> list[str]:
    """Return a sentence for everything in Redis that an idle installation must not have."""
    found = leaked_keys(client)
    groups = [(keys.queue(stream), PREFILL_GROUP) for stream in keys.streams]
    groups += [(keys.decode(worker.decode()), DECODE_GROUP) for worker in client.smembers(keys.workers)]
    for stream, group in groups:
        num_entries, num_pending = client.xlen(stream), client.xpending(stream, group)["pending"]
        if num_entries or num_pending:
            found.append(f"{stream}: {num_entries} entries, {num_pending} pending")
    found += [f"{keys.dead}: {fields}" for _, fields in client.xrange(keys.dead)]
    for router in client.smembers(keys.routers):
        owned = keys.owned(router.decode())
        if client.exists(owned):
            found.append(f"{owned}: {client.type(owned).decode()} is not empty")
    for record in client.scan_iter(match=keys.request("*"), count=1000):
        state = client.hget(record, "state")
        if state is not None and state.decode() not in TERMINAL_STATES:
            found.append(f"{record.decode()}: {state.decode()}")
    return found


async def reclaim_s(cluster: Cluster) -> float:
    """Let clients leave all at once, some with answers under way, some waiting for room; return how long workers report
    blocks as taken."""
    streams = [cluster.stream([300 + i] * 40, max_tokens=400, ignore_eos=True) for i in range(NUM_LEAVING)]
    for stream in streams:
        await anext(stream)

    async def are_reported() -> bool:
        workers = await cluster.live_workers()
        return sum(worker["num_decoding"] + worker["num_waiting_decode"] for worker in workers) == NUM_LEAVING

    await wait_until(are_reported, what="that the workers report what they have to decode")
    left_s = time.perf_counter()
    for stream in streams:
        await stream.aclose()
    await wait_for_balance(cluster, RECLAIM_BOUND_S)
    return time.perf_counter() - left_s


async def wait_for_nothing_left(cluster: Cluster) -> None:
    """Return when Redis holds nothing but what an idle installation has; the killed worker leaves after its heartbeat."""
    keys = Keys(cluster.name)
    with redis.Redis.from_url(cluster.redis.url) as client:
        try:
            await wait_until(lambda: not leftovers(client, keys), 10, "an empty Redis")
        except AssertionError:
            raise AssertionError("\n".join(leftovers(client, keys))) from None
        assert len(client.smembers(keys.workers)) == len(ROLES)


def check_answers(clients: Clients, model: Path) -> None:
    """Nobody who stayed was let down: all have what they asked for, and of some each token is held to the reference."""
    assert sum(clients.outcomes.values()) == NUM_REQUESTS
    for _, max_tokens, answer in clients.answers:
        assert answer.error is None
        assert (len(answer.token_ids), answer.finish_reason) == (max_tokens, "length")
    for prompt, max_tokens, answer in clients.answers[:: len(clients.answers) // NUM_COMPARED]:
        assert_greedy(model, prompt, answer.token_ids, num_expected=max_tokens)
    for how in ("answered", "left while it ran", "left before a token", "left and was not streaming"):
        assert clients.outcomes[how] >= 5, clients.outcomes


async def test_a_thousand_requests_leave_nothing_behind(model: Path, tmp_path: Path) -> None:
    """Ledgers balance to zero, nothing is pending, every key has a TTL or is permanent, no shared-memory file stays."""
    flags = ("--dtype", "float32", "--num-blocks", str(NUM_BLOCKS), "--max-batch-tokens", "128")
    async with Cluster(tmp_path, model, ROLES, worker_flags=flags) as cluster:
        clients = Clients(cluster, model, random.Random(1))
        started_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(clients.run())
            await wait_until(lambda: clients.num_done > NUM_REQUESTS // 2 or running.done(), 60, "half of the requests")
            cluster.kill(cluster.names("decode")[0])
            cluster.start_worker("decode")
        took_s = time.perf_counter() - started_s
        await cluster.wait_ready()
        await wait_for_balance(cluster, 20)
        reclaims_s = [await reclaim_s(cluster) for _ in range(NUM_RECLAIMS)]
        await wait_for_nothing_left(cluster)
    # On leaving, every process has exited with status 0 and no shared-memory file was left but the killed worker's,
    # which the sweep of `brigade up` took away.
    check_answers(clients, model)
    print(f"\n{NUM_REQUESTS} requests in {took_s:.1f} s: {dict(clients.outcomes)}")
    print(f"cancel_reclaim_s: {', '.join(f'{s:.3f}' for s in sorted(reclaims_s))} (heartbeat 0.2 s)")
