"""Worker hosts that die, pause, lose answers or lose Redis in the middle of work: no token is lost, repeated or changed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.emulated_cluster import (
    TIMING,
    EmulatedCluster,
    LossyBus,
    make_spec,
    random_prompt,
)
from support.redis_server import RedisServer
from support.waiting import wait_until

from brigade.bus.client import Argument, Bus
from brigade.bus.inspect import request_record
from brigade.bus.leadership import Leadership
from brigade.core.errors import BusError
from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled, Slice
from brigade.engine.emulated import EmulatedEngine


@pytest.fixture
async def cluster(
    no_key_leaks: None, redis_url: str, installation: str, tmp_path: Path
) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster


class GatedEngine(EmulatedEngine):
    """Stops before a step when its gate is closed, so that a test can act in the middle of work."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.gate = threading.Event()
        self.gate.set()
        self.is_waiting = threading.Event()
        self.steps_left: int | None = None

    def stop_after(self, num_steps: int) -> None:
        """Close the gate after some more steps."""
        self.steps_left = num_steps

    def open(self) -> None:
        self.steps_left = None
        self.is_waiting.clear()
        self.gate.set()

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        if self.steps_left is not None:
            if self.steps_left == 0:
                self.gate.clear()
            self.steps_left -= 1
        if not self.gate.is_set():
            self.is_waiting.set()
            assert self.gate.wait(timeout=20), "the test never opened the gate"
        return super().step(slices)


def some_specs(num: int, *, name: str = "r", max_tokens: int = 30) -> list[RequestSpec]:
    return [make_spec(f"{name}{i}", random_prompt(5 + 13 * i % 120, i), max_tokens=max_tokens) for i in range(num)]


async def num_attempts(cluster: EmulatedCluster, spec: RequestSpec) -> int:
    record = await request_record(cluster.bus, spec.request_id)
    assert record is not None
    return int(record["attempt"])


@pytest.mark.parametrize("num_steps", [1, 3, 9])
async def test_a_killed_decode_worker_costs_an_attempt_and_no_token(cluster: EmulatedCluster, num_steps: int) -> None:
    """Its owner goes on from the accepted prefix on another worker."""
    await cluster.add(Role.PREFILL)
    victim = await cluster.add(Role.DECODE, engine_type=GatedEngine)
    engine = victim.machine.engine
    assert isinstance(engine, GatedEngine)
    engine.stop_after(num_steps)
    specs = some_specs(6)
    answers = await cluster.ask(*specs)
    await wait_until(engine.is_waiting.is_set, what="the victim is in the middle of a step")
    await cluster.add(Role.DECODE)
    killing = asyncio.create_task(cluster.kill(victim))
    engine.open()
    await killing
    await cluster.check(specs, answers)
    assert max([await num_attempts(cluster, spec) for spec in specs]) > 1


@pytest.mark.parametrize("num_steps", [0, 1, 2])
async def test_a_killed_prefill_worker_costs_an_attempt_and_no_token(cluster: EmulatedCluster, num_steps: int) -> None:
    """Between chunks, and with KV lent that nobody has pulled yet."""
    victim = await cluster.add(Role.PREFILL, engine_type=GatedEngine)
    await cluster.add(Role.DECODE, max_num_seqs=1)
    engine = victim.machine.engine
    assert isinstance(engine, GatedEngine)
    engine.stop_after(num_steps)
    specs = some_specs(6)
    answers = await cluster.ask(*specs)
    await wait_until(engine.is_waiting.is_set, what="the victim is in the middle of a step")
    await cluster.add(Role.PREFILL)
    killing = asyncio.create_task(cluster.kill(victim))
    engine.open()
    await killing
    await cluster.check(specs, answers)


async def test_a_worker_that_was_written_off_comes_back_under_a_new_id(cluster: EmulatedCluster) -> None:
    """A paused process: its heartbeat lapses and the janitor cleans up; it drops everything and works again (rule 5)."""
    await cluster.add(Role.PREFILL)
    paused = await cluster.add(Role.DECODE)
    old_id = paused.worker_id
    specs = some_specs(5, max_tokens=60)
    answers = await cluster.ask(*specs)
    await wait_until(lambda: any(answer.token_ids for answer in answers))
    write_off = "redis.call('DEL', KEYS[1]) redis.call('SREM', KEYS[2], ARGV[1])"  # the janitor's last act
    keys = (cluster.bus.keys.worker(old_id), cluster.bus.keys.workers)
    await cluster.bus.command("EVAL", write_off, 2, *keys, old_id)
    await wait_until(lambda: paused.host.ready() is None and paused.worker_id != old_id, what="it has a new id")
    await cluster.check(specs, answers)
    for key in (cluster.bus.keys.decode(old_id), cluster.bus.keys.control(old_id)):
        await cluster.bus.command("DEL", key)  # the janitor would have: this test took its part


async def test_a_lapsed_lease_is_taken_up_again_without_loss(cluster: EmulatedCluster) -> None:
    """Nobody has cleaned up: the worker registers again under its id and role, and everything goes on."""
    await cluster.add(Role.PREFILL)
    member = await cluster.add(Role.DECODE)
    old_id = member.worker_id
    await cluster.bus.command("DEL", cluster.bus.keys.worker(old_id))
    await wait_until(lambda: cluster.bus.command("EXISTS", cluster.bus.keys.worker(old_id)), what="it registers again")
    assert member.worker_id == old_id
    await cluster.ask_and_check(*some_specs(4))


@pytest.mark.parametrize("seed", range(4))
async def test_lost_answers_change_nothing(
    cluster: EmulatedCluster, redis_url: str, installation: str, seed: int
) -> None:
    """Every script may have been executed though its caller heard nothing (rules 1, 4, 9): claims, hand-overs, admissions,
    steps. No attempt is needed beyond the first."""
    buses = [LossyBus(redis_url, installation, lose=0.25, seed=10 * seed + i) for i in range(4)]
    for bus, role in zip(buses, ("prefill", "decode", "decode", "mixed"), strict=True):
        await cluster.add(Role(role), bus=bus)
    specs = some_specs(16)
    await cluster.check(specs, await cluster.ask(*specs))
    assert sum(bus.num_lost for bus in buses) > 5
    assert {await num_attempts(cluster, spec) for spec in specs} == {1}


async def test_nothing_left_is_a_loan(cluster: EmulatedCluster) -> None:
    """A lost release hint costs one heartbeat: the lender looks at the record (rule 11)."""
    lender = await cluster.add(Role.PREFILL)
    reader = await cluster.add(Role.DECODE)
    await cluster.bus.command("DEL", cluster.bus.keys.control(lender.worker_id))  # hints have nowhere to go
    specs = some_specs(4)
    await cluster.check(specs, await cluster.ask(*specs))
    await wait_until(lambda: not lender.machine.pool.loan_keys(), what="all loans have ended")
    assert reader.machine.pool.ledger.is_idle


async def test_the_loan_of_a_dead_reader_ends(cluster: EmulatedCluster) -> None:
    """Its owner starts anew, so the lender need not keep the blocks for it."""
    lender = await cluster.add(Role.PREFILL)
    reader = await cluster.add(Role.DECODE, max_num_seqs=1)
    specs = some_specs(3, max_tokens=100)
    answers = await cluster.ask(*specs)
    await wait_until(lambda: len(lender.machine.pool.loan_keys()) >= 2, what="two requests wait for the reader's slot")
    await cluster.kill(reader)
    await cluster.add(Role.DECODE)
    await cluster.check(specs, answers)


async def flip(cluster: EmulatedCluster, worker_id: str, role: Role) -> int:
    """Decide a role as the leading balancer does; returns its epoch."""
    leadership = Leadership(cluster.bus, "test", ttl_s=30)
    assert await leadership.renew()
    epoch = await leadership.set_role(worker_id, role, highest_epoch=0)
    assert isinstance(epoch, int), epoch
    return epoch


async def test_a_worker_changes_its_role_there_and_back_under_load(cluster: EmulatedCluster) -> None:
    """P → D → P while requests run: nothing is restarted, no attempt is raised, no token changes."""
    flipping = await cluster.add(Role.PREFILL)
    other = await cluster.add(Role.MIXED)
    worker_id = flipping.worker_id
    specs, answers = [], []
    for round_, role in enumerate((Role.DECODE, Role.PREFILL, Role.MIXED)):
        more = some_specs(8, name=f"round{round_}-", max_tokens=40)
        specs += more
        answers += await cluster.ask(*more)
        epoch = await flip(cluster, worker_id, role)
        roles = flipping.life.roles
        await wait_until(lambda epoch=epoch, roles=roles: roles.epoch == epoch, what=f"the role is {role}")
        assert roles.role is role
    await cluster.check(specs, answers)
    assert flipping.worker_id == worker_id
    assert {await num_attempts(cluster, spec) for spec in specs} == {1}
    assert other.life.roles.epoch == 0


async def test_a_decision_that_is_taken_back_while_draining_ends_in_the_old_role(cluster: EmulatedCluster) -> None:
    """A rollback is a decision of its own under the next epoch."""
    prefill = await cluster.add(Role.PREFILL)
    decode = await cluster.add(Role.DECODE, engine_type=GatedEngine)
    engine = decode.machine.engine
    assert isinstance(engine, GatedEngine)
    engine.stop_after(2)
    specs = some_specs(2)
    answers = await cluster.ask(*specs)
    await wait_until(engine.is_waiting.is_set)
    await flip(cluster, decode.worker_id, Role.PREFILL)
    await wait_until(lambda: decode.life.roles.state.value == "draining")
    epoch = await flip(cluster, decode.worker_id, Role.DECODE)
    engine.open()
    await wait_until(lambda: decode.life.roles.epoch == epoch and decode.life.roles.state.value == "serving")
    assert decode.life.roles.role is Role.DECODE
    await cluster.check(specs, answers)
    assert prefill.life.roles.role is Role.PREFILL


async def test_a_restarted_redis_that_remembers_is_a_pause(
    own_redis_server: RedisServer, installation: str, tmp_path: Path
) -> None:
    """With an append-only file nothing is lost but time."""
    own_redis_server.restart(append_only=True)
    async with EmulatedCluster(own_redis_server.url, installation, tmp_path) as cluster:
        await cluster.add(Role.PREFILL)
        await cluster.add(Role.DECODE)
        specs = some_specs(6, max_tokens=120)
        answers = await cluster.ask(*specs)
        await wait_until(lambda: any(answer.token_ids for answer in answers))
        await asyncio.to_thread(own_redis_server.restart)
        await cluster.check(specs, answers, deadline_s=30)
        await cluster.ask_and_check(*some_specs(4, name="after"))


async def test_a_redis_that_forgot_everything_costs_an_attempt_and_no_token(
    own_redis_server: RedisServer, installation: str, tmp_path: Path
) -> None:
    """Workers come back under new ids, owners start anew from what they accepted (rule 2)."""
    async with EmulatedCluster(own_redis_server.url, installation, tmp_path) as cluster:
        await cluster.add(Role.PREFILL)
        await cluster.add(Role.DECODE)
        await cluster.add(Role.MIXED)
        specs = some_specs(8, max_tokens=120)
        answers = await cluster.ask(*specs)
        await wait_until(lambda: any(answer.token_ids for answer in answers))
        await asyncio.to_thread(own_redis_server.restart)
        await cluster.check(specs, answers, deadline_s=30)
        await cluster.ask_and_check(*some_specs(4, name="after"))


async def test_steps_stop_when_too_many_tokens_wait_for_redis(
    own_redis_server: RedisServer, installation: str, tmp_path: Path
) -> None:
    """While Redis is away a decode worker runs ahead by a bounded number of tokens, then waits, and loses none."""
    async with EmulatedCluster(own_redis_server.url, installation, tmp_path) as cluster:
        await cluster.add(Role.PREFILL)
        member = await cluster.add(Role.DECODE, max_num_seqs=1, engine_type=GatedEngine)
        engine = member.machine.engine
        assert isinstance(engine, GatedEngine)
        engine.stop_after(3)
        spec = make_spec("long", random_prompt(10, 1), max_tokens=200)
        answers = await cluster.ask(spec)
        await wait_until(engine.is_waiting.is_set)
        own_redis_server.pause()
        engine.open()
        outbox = member.life.decode.outbox
        await wait_until(lambda: outbox.is_full, what="the outbox is full")
        [key] = member.life.decode.batch.keys()
        sequence = member.life.decode.batch.get(key)
        assert sequence is not None
        assert len(sequence.output_token_ids) < 200, "it did not stop"
        own_redis_server.resume()
        await cluster.check([spec], answers, deadline_s=30)


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_kills_cancels_and_flips(
    cluster: EmulatedCluster, redis_url: str, installation: str, seed: int
) -> None:
    """Everything at once, by a seed: what is not cancelled ends right, and every ledger balances to zero."""
    chance = random.Random(seed)
    for role in (Role.PREFILL, Role.DECODE, Role.MIXED):
        await cluster.add(role, bus=LossyBus(redis_url, installation, lose=0.05, seed=seed))
    kept, cancelled = some_specs(14, name="kept", max_tokens=60), some_specs(6, name="gone", max_tokens=60)
    answers = await cluster.ask(*kept)
    await cluster.ask(*cancelled)
    for spec in cancelled:
        victim = chance.choice(cluster.members[:-1]) if chance.random() < 0.5 else None
        if victim is not None:
            role = victim.life.roles.role
            await cluster.kill(victim)
            await cluster.add(role)
        elif chance.random() < 0.5:
            member = cluster.members[-1]
            await flip(cluster, member.worker_id, chance.choice([Role.DECODE, Role.PREFILL, Role.MIXED]))
        cluster.owner.cancel(spec.request_id)
    if not any(m.life.roles.role.prefills for m in cluster.members):
        await cluster.add(Role.PREFILL)
    await cluster.add(Role.DECODE)
    await cluster.check(kept, answers, deadline_s=40)


class DeafBus(Bus):
    """Answers no script while it is deaf, and runs none."""

    is_deaf = False

    async def run(self, script: str, *args: Argument, timeout_s: float | None = None) -> Any:
        if self.is_deaf:
            raise BusError("deaf on purpose")
        return await super().run(script, *args, timeout_s=timeout_s)


async def test_a_worker_outlives_its_missed_heartbeats(
    cluster: EmulatedCluster, redis_url: str, installation: str
) -> None:
    """A heartbeat without an answer is a missed heartbeat and nothing more: the lease lapses and is taken up again."""
    bus = DeafBus(redis_url, installation, block_ms=TIMING.block_ms)
    await cluster.add(Role.PREFILL)
    member = await cluster.add(Role.DECODE, bus=bus)
    key = cluster.bus.keys.worker(member.worker_id)

    async def has_lapsed() -> bool:
        return not await cluster.bus.command("EXISTS", key)

    bus.is_deaf = True
    await wait_until(has_lapsed)
    bus.is_deaf = False
    specs = some_specs(3)
    await cluster.check(specs, await cluster.ask(*specs))
