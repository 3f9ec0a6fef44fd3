"""Whole worker hosts with emulated engines: a request's tokens are the same whichever way it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from support.emulated_cluster import BLOCK_SIZE_TOKENS, EmulatedCluster, answer_alone, make_spec, random_prompt
from support.waiting import wait_until

from brigade.bus.inspect import request_record
from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from services.worker.metrics import WorkerMetrics

pytestmark = pytest.mark.usefixtures("no_key_leaks")


@pytest.fixture
async def cluster(redis_url: str, installation: str, tmp_path: Path) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster
    assert not list(tmp_path.glob("*.kv")), "a KV pool is left behind"


def mixed_lengths(num: int, *, max_tokens: int = 12, longest: int = 150) -> list[RequestSpec]:
    """Prompts from one token up, some of them sampled instead of greedy."""
    lengths = [1 + (longest - 1) * i // max(1, num - 1) for i in range(num)]
    return [
        make_spec(f"r{i}", random_prompt(n, i), max_tokens=1 + i % max_tokens, temperature=float(i % 2), seed=i)
        for i, n in enumerate(lengths)
    ]


async def test_one_request_goes_from_prefill_to_decode(cluster: EmulatedCluster) -> None:
    """The oracle of everything: the answer over two workers equals that of one engine alone."""
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    [answer] = await cluster.ask_and_check(make_spec("r", random_prompt(21, 1), max_tokens=10))
    assert (len(answer.token_ids), answer.finish_reason) == (10, "length")


@pytest.mark.parametrize(
    "roles", [("prefill", "decode"), ("prefill", "prefill", "decode", "decode"), ("mixed", "mixed")]
)
async def test_many_requests_of_mixed_length(cluster: EmulatedCluster, roles: tuple[str, ...]) -> None:
    """Chunked (a step computes 64 tokens) and whole, alone and packed, in every shape of installation."""
    for role in roles:
        await cluster.add(Role(role))
    await cluster.ask_and_check(*mixed_lengths(24))


@pytest.mark.parametrize("role", [Role.DECODE, Role.MIXED])
async def test_a_pool_too_small_for_all_at_once_serves_all_in_turn(cluster: EmulatedCluster, role: Role) -> None:
    """Requests wait for room in the queue, in the batch and in the decode stream; none fails and none is stuck."""
    await cluster.add(Role.PREFILL if role is Role.DECODE else role, num_blocks=48)
    await cluster.add(role, num_blocks=48)
    await cluster.ask_and_check(*mixed_lengths(24))


async def test_sequences_that_wait_for_a_slot_are_admitted_in_turn(cluster: EmulatedCluster) -> None:
    """max_num_seqs bounds the running batch, not what may be handed over."""
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE, max_num_seqs=2)
    await cluster.ask_and_check(*mixed_lengths(10))


@pytest.mark.parametrize("roles", [("prefill", "decode"), ("mixed",)])
async def test_equal_prefixes_are_computed_once(cluster: EmulatedCluster, roles: tuple[str, ...]) -> None:
    """Branches submitted together share the first one's blocks, and a later request finds them in the cache."""
    for role in roles:
        await cluster.add(Role(role))
    prompt = random_prompt(42, 3)
    branches = [make_spec(f"r/{i}", prompt, temperature=1.0, seed=i) for i in range(4)]
    answers = await cluster.ask_and_check(*branches)
    num_cacheable = 41 // BLOCK_SIZE_TOKENS * BLOCK_SIZE_TOKENS
    assert sorted(answer.num_cached_tokens for answer in answers) == [0, *[num_cacheable] * 3]
    [later] = await cluster.ask_and_check(make_spec("later", [*prompt, 7, 8, 9]))
    assert later.num_cached_tokens == num_cacheable


async def test_at_least_the_last_token_is_computed(cluster: EmulatedCluster) -> None:
    """A prompt that is cached to its end still needs the logits after its last token."""
    await cluster.add(Role.MIXED)
    prompt = random_prompt(4 * BLOCK_SIZE_TOKENS, 5)
    await cluster.ask_and_check(make_spec("first", prompt))
    [again] = await cluster.ask_and_check(make_spec("again", prompt))
    assert again.num_cached_tokens == 3 * BLOCK_SIZE_TOKENS


async def test_an_answer_is_cached_for_the_next_turn(cluster: EmulatedCluster) -> None:
    """A conversation goes on with prompt and answer: both are in the cache of the worker that decoded."""
    await cluster.add(Role.MIXED)
    first = make_spec("turn1", random_prompt(10, 6), max_tokens=15)
    [answer] = await cluster.ask_and_check(first)
    [after] = await cluster.ask_and_check(make_spec("turn2", [*first.prompt_token_ids, *answer.token_ids, 5]))
    assert after.num_cached_tokens == 24  # 10 + 15 tokens, the last one's KV was never computed


async def test_first_token_may_be_the_last(cluster: EmulatedCluster) -> None:
    """Rule 7: by length, and by a stop token; nothing is handed over."""
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    prompt = random_prompt(9, 2)
    [first_token] = answer_alone(make_spec("probe", prompt, max_tokens=1))
    by_length, by_stop = await cluster.ask_and_check(
        make_spec("length", prompt, max_tokens=1), make_spec("stop", prompt, stop_token_ids=frozenset({first_token}))
    )
    assert (by_length.finish_reason, by_stop.finish_reason) == ("length", "stop")


async def test_a_stop_token_ends_the_answer(cluster: EmulatedCluster) -> None:
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    prompt = random_prompt(9, 4)
    fifth = answer_alone(make_spec("probe", prompt))[4]
    [answer] = await cluster.ask_and_check(make_spec("r", prompt, max_tokens=50, stop_token_ids=frozenset({fifth})))
    assert (len(answer.token_ids), answer.finish_reason) == (5, "stop")


async def test_pools_in_device_memory_lend_copies(cluster: EmulatedCluster) -> None:
    """A pool that others cannot map lends through staging and pulls through a buffer; mixed workers keep their own KV."""
    await cluster.add(Role.PREFILL, is_staging=True)
    await cluster.add(Role.DECODE, is_staging=True)
    await cluster.ask_and_check(*mixed_lengths(16))
    await cluster.add(Role.MIXED, is_staging=True)
    more = [make_spec(f"more{i}", random_prompt(30, 90 + i)) for i in range(8)]
    await cluster.ask_and_check(*more)


async def test_a_job_that_no_worker_can_hold_ends_with_a_reason_and_the_worker_goes_on(
    cluster: EmulatedCluster,
) -> None:
    """Dead-lettered with its reason, its owner told; the router turns such requests away, a stream entry may still come."""
    await cluster.add(Role.PREFILL, num_blocks=16)
    await cluster.add(Role.DECODE, num_blocks=16)
    [answer] = await cluster.ask(make_spec("huge", random_prompt(100, 1)))
    await wait_until(lambda: answer.has_ended, deadline_s=20, what="the request fails")
    assert answer.error is not None
    letters = await cluster.bus.command("XRANGE", cluster.bus.keys.dead, "-", "+")
    assert any(b"do not fit into a pool" in fields[b"reason"] for _, fields in letters)
    await cluster.ask_and_check(make_spec("fits", random_prompt(10, 2)))


async def test_a_request_that_no_decoder_can_hold_ends_with_a_reason(cluster: EmulatedCluster) -> None:
    """The prefill worker's pool is large enough, those of the decoders are not: it must not hold its blocks for ever."""
    await cluster.add(Role.PREFILL, num_blocks=64)
    await cluster.add(Role.DECODE, num_blocks=16)
    [answer] = await cluster.ask(make_spec("huge", random_prompt(100, 1)))
    await wait_until(lambda: answer.has_ended, deadline_s=20, what="the request fails")
    assert answer.error is not None
    await cluster.ask_and_check(make_spec("fits", random_prompt(10, 2)))


async def test_a_mixed_worker_serves_what_is_handed_to_it_beside_its_own(cluster: EmulatedCluster) -> None:
    """Its own prefills must not take the room for which handed-over requests wait."""
    await cluster.add(Role.MIXED, num_blocks=40)
    await cluster.add(Role.PREFILL)
    specs = [make_spec(f"r{i}", random_prompt(40, i), max_tokens=60) for i in range(16)]
    await cluster.ask_and_check(*specs)


async def test_metrics_say_what_the_worker_holds(cluster: EmulatedCluster) -> None:
    member = await cluster.add(Role.MIXED)
    await cluster.ask_and_check(make_spec("r", random_prompt(10, 2)))
    await cluster.settle()
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(member.host))
    assert registry.get_sample_value("brigade_worker_free_blocks") == 128
    assert registry.get_sample_value("brigade_worker_steps_total") == 8


async def test_poison_in_the_queue_is_buried_and_the_worker_goes_on(cluster: EmulatedCluster) -> None:
    await cluster.add(Role.MIXED)
    queue = cluster.bus.keys.queue(cluster.bus.keys.streams[0])
    await cluster.bus.command("XADD", queue, "*", "r", "x", "a", "1", "j", b"\xc1 not msgpack")
    await cluster.ask_and_check(make_spec("fits", random_prompt(10, 2)))
    assert await wait_until(lambda: cluster.bus.command("XLEN", cluster.bus.keys.dead))


async def test_a_cancelled_request_gives_its_blocks_back(cluster: EmulatedCluster) -> None:
    """Wherever it is when the client leaves: waiting, in a chunk, in the decode batch."""
    await cluster.add(Role.PREFILL, num_blocks=64)
    await cluster.add(Role.DECODE, num_blocks=64)
    specs = [make_spec(f"r{i}", random_prompt(60, i), max_tokens=190) for i in range(6)]
    answers = await cluster.ask(*specs)
    await wait_until(lambda: any(answer.token_ids for answer in answers), what="some tokens are out")
    for spec in specs:
        cluster.owner.cancel(spec.request_id)
    await cluster.settle()
    record = await request_record(cluster.bus, "r0")
    assert record is not None
    assert record["state"] in ("CANCELLED", "FINISHED")


async def test_workers_that_leave_finish_what_they_have(cluster: EmulatedCluster) -> None:
    """SIGTERM drains: no attempt is raised for it, and the entry of a prefill that has no target goes back."""
    leaving = [await cluster.add(Role.PREFILL), await cluster.add(Role.DECODE)]
    specs = mixed_lengths(12, max_tokens=40)
    answers = await cluster.ask(*specs)
    await wait_until(lambda: any(answer.token_ids for answer in answers), what="some tokens are out")
    await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    for member in leaving:
        member.stop.begin()
    await cluster.check(specs, answers)
    for member in leaving:
        await member.task
        await cluster.kill(member)
    for spec in specs:
        record = await request_record(cluster.bus, spec.request_id)
        assert record is not None
        assert record["attempt"] == "1"
