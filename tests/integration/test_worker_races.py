"""Worker hosts in rare interleavings: scripts executed late, a Redis that forgets one step, ends not yet recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.emulated_cluster import TIMING, EmulatedCluster, Member, make_spec, random_prompt
from support.waiting import wait_until
from test_worker_faults import GatedEngine

from brigade.bus.client import Bus
from brigade.bus.inspect import request_record
from brigade.bus.leadership import Leadership
from brigade.bus.prefill_queue import PrefillQueue
from brigade.core.errors import BusError
from brigade.core.messages import Role


@pytest.fixture
async def cluster(
    no_key_leaks: None, redis_url: str, installation: str, tmp_path: Path
) -> AsyncIterator[EmulatedCluster]:
    async with EmulatedCluster(redis_url, installation, tmp_path) as cluster:
        yield cluster


def gate_of(member: Member) -> GatedEngine:
    engine = member.machine.engine
    assert isinstance(engine, GatedEngine)
    return engine


async def test_a_claim_executed_after_its_sender_gave_it_up_is_found(cluster: EmulatedCluster) -> None:
    """Rule 4: nothing fails afterwards that would make the worker look, and its heartbeat keeps the owner quiet."""
    member = await cluster.add(Role.MIXED)
    member.life.prefill.claiming.is_open = False
    spec = make_spec("late", random_prompt(9, 1))
    [answer] = await cluster.ask(spec)
    queue = PrefillQueue(cluster.bus, member.worker_id, record_ttl_s=60)

    async def claim_in_its_name() -> object:
        return await queue.claim(await queue.window(8))

    await wait_until(claim_in_its_name)
    member.life.prefill.claiming.is_open = True
    await cluster.check([spec], [answer])


class LateReadBus(Bus):
    """Once armed, gives up one read of new decode jobs, which Redis executes only when `execute` is set."""

    def __init__(self, url: str, installation: str) -> None:
        super().__init__(url, installation, block_ms=TIMING.block_ms)
        self.is_armed = False
        self.execute = asyncio.Event()
        self._late: asyncio.Task[object] | None = None

    async def read_group(
        self, key: str, group: str, consumer: str, *, count: int, new: bool, block_ms: int | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        if self.is_armed:
            self.is_armed = False
            self._late = asyncio.create_task(self._read_late(key, group, consumer))
            raise BusError("given up, and not yet executed")
        if self._late is not None:
            await self._late
        return await super().read_group(key, group, consumer, count=count, new=new, block_ms=block_ms)

    async def _read_late(self, key: str, group: str, consumer: str) -> object:
        await self.execute.wait()
        return await super().read_group(key, group, consumer, count=64, new=True)


async def test_a_read_executed_after_its_sender_gave_it_up_loses_no_job(
    cluster: EmulatedCluster, redis_url: str, installation: str
) -> None:
    """Rule 4: the job is pending for the worker, which looked at what is pending before."""
    await cluster.add(Role.PREFILL)
    bus = LateReadBus(redis_url, installation)
    decoder = await cluster.add(Role.DECODE, bus=bus)
    bus.is_armed = True
    await wait_until(lambda: not bus.is_armed, what="a read is given up")
    spec = make_spec("late", random_prompt(9, 2))
    [answer] = await cluster.ask(spec)

    async def is_handed() -> bool:
        return bool(await cluster.bus.command("XLEN", cluster.bus.keys.decode(decoder.worker_id)))

    await wait_until(is_handed)
    bus.execute.set()
    await cluster.check([spec], [answer])


async def _forget_claims(cluster: EmulatedCluster, request_ids: Sequence[str]) -> None:
    """Set records and queue back to before the claim, as a Redis does that has lost its last writes."""
    for request_id in request_ids:
        key = cluster.bus.keys.request(request_id)
        stream, entry = await cluster.bus.command("HMGET", key, "stream", "entry")
        await cluster.bus.command("HSET", key, "state", "QUEUED", "holder", "", "prefiller", "")
        park = "return #redis.call('XCLAIM', KEYS[1], 'prefill', 'inbox', 0, ARGV[1], 'JUSTID')"
        assert await cluster.bus.command("EVAL", park, 1, cluster.bus.keys.queue(stream.decode()), entry) == 1


async def test_a_worker_that_claims_what_it_computes_already_computes_it_once(cluster: EmulatedCluster) -> None:
    """Redis forgot the claim and gives the job to the same worker again, before the owner has raised it."""
    prefiller = await cluster.add(Role.PREFILL, engine_type=GatedEngine)
    await cluster.add(Role.DECODE)
    engine = gate_of(prefiller)
    engine.stop_after(0)
    spec = make_spec("twice", random_prompt(9, 3))
    [answer] = await cluster.ask(spec)
    await wait_until(engine.is_waiting.is_set)
    await _forget_claims(cluster, ["twice"])

    async def is_claimed_again() -> bool:
        record = await request_record(cluster.bus, "twice")
        return record is not None and record["state"] == "PREFILLING"

    await wait_until(is_claimed_again)
    engine.open()
    await cluster.check([spec], [answer])
    assert not prefiller.task.done()


async def test_an_end_that_is_not_yet_recorded_is_not_decoded_again(
    cluster: EmulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry is still pending: a look at what is pending must not take it for a job that nobody runs."""
    await cluster.add(Role.PREFILL)
    decoder = await cluster.add(Role.DECODE)
    may_publish, is_held = asyncio.Event(), asyncio.Event()
    run = decoder.bus.run

    async def held_run(script: str, *args: object, **options: object) -> object:
        if script == "step":
            is_held.set()
            await may_publish.wait()
        return await run(script, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder.bus, "run", held_run)
    spec = make_spec("ending", random_prompt(9, 4), max_tokens=2)
    [answer] = await cluster.ask(spec)
    await wait_until(lambda: is_held.is_set() and not decoder.life.decode.batch.num_sequences)
    looks: list[bool] = []
    read = decoder.bus.command

    async def seen_command(*args: object, **options: object) -> object:
        reply = await read(*args, **options)  # type: ignore[arg-type]
        if args[0] == "XREADGROUP":
            looks.append(True)
        return reply

    monkeypatch.setattr(decoder.bus, "command", seen_command)
    decoder.life.decode.intake.doubt()
    await wait_until(lambda: looks, what="it looks at its pending jobs")
    waited: list[int] = []
    for _ in range(20):
        await asyncio.sleep(0)
        waited.append(decoder.life.decode.intake.num_waiting)
    assert not any(waited)
    may_publish.set()
    await cluster.check([spec], [answer])
    record = await request_record(cluster.bus, "ending")
    assert record is not None
    assert record["attempt"] == "1"


@pytest.mark.parametrize("others", [(), (Role.PREFILL,)])
async def test_the_only_worker_that_decodes_drains_with_a_prefill_of_its_own(
    cluster: EmulatedCluster, others: Sequence[Role]
) -> None:
    """It has closed itself to hand-overs, its own included, and nobody else takes them: it must not wait for ever."""
    flipped = await cluster.add(Role.MIXED, engine_type=GatedEngine)
    engine = gate_of(flipped)
    engine.stop_after(0)
    spec = make_spec("own", random_prompt(9, 5))
    [answer] = await cluster.ask(spec)
    await wait_until(engine.is_waiting.is_set)
    for role in others:
        await cluster.add(role)
    leadership = Leadership(cluster.bus, "test", ttl_s=30)
    assert await leadership.renew()
    await leadership.set_role(flipped.worker_id, Role.MIXED, highest_epoch=0)

    async def is_draining() -> bool:
        [accepting] = await cluster.bus.command("HMGET", cluster.bus.keys.worker(flipped.worker_id), "accepting")
        return bool(accepting == b"0")

    await wait_until(is_draining)
    engine.open()
    await cluster.check([spec], [answer], deadline_s=8)
    await wait_until(lambda: flipped.life.roles.epoch == 1)
