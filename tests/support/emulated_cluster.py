"""Worker hosts with emulated engines in this process, on a real Redis, under the real owner of requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brigade.bus.client import Argument, Bus
from brigade.core.answer import AcceptedTokens
from brigade.core.config import InstallationConfig, TimingConfig, WorkerConfig
from brigade.core.errors import BrigadeError, BusError
from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import SampleRequest, Slice
from brigade.engine.emulated import EMULATED_LAYOUT, EmulatedEngine, emulated_block_bytes, emulated_model
from brigade.kv.arena import Arena
from brigade.runtime.service import Stop
from services.router.owning.owner import RequestOwner
from services.worker.host import WorkerHost, new_worker_id
from services.worker.life import Life
from services.worker.loading import num_staging_blocks
from services.worker.machine import Machine, make_machine, new_threads
from support.waiting import wait_until

TIMING = TimingConfig(
    heartbeat_interval_s=0.1,
    heartbeat_ttl_s=0.6,
    gap_timeout_s=0.5,
    max_attempts=20,
    record_ttl_s=60,
    block_ms=100,
    drain_deadline_s=20.0,
)
BLOCK_SIZE_TOKENS = 4
MODEL = emulated_model(vocab_size=500, max_model_len_tokens=256, eos_token_ids=(0,))


class Answer:
    """A sink that keeps what it is given, and holds the owner to its promise of order."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.num_cached_tokens = 0
        self.error: BrigadeError | None = None

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        assert accepted.offset == len(self.token_ids)
        self.token_ids += [token.token_id for token in accepted.tokens]
        self.finish_reason = accepted.finish_reason
        self.num_cached_tokens += accepted.num_cached_tokens
        return None

    def on_error(self, error: BrigadeError) -> None:
        self.error = error

    @property
    def has_ended(self) -> bool:
        return self.finish_reason is not None or self.error is not None


def make_spec(
    request_id: str,
    prompt: Sequence[int],
    *,
    max_tokens: int = 8,
    stop_token_ids: frozenset[int] = frozenset(),
    temperature: float = 0.0,
    seed: int = 0,
    priority_class: str = "standard",
) -> RequestSpec:
    return RequestSpec(
        request_id=request_id,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(temperature=temperature, seed=seed),
        stop=StopParams(max_tokens=max_tokens, stop_token_ids=stop_token_ids),
        priority_class=priority_class,
        arrival_s=1000.0,
    )


def random_prompt(num_tokens: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(1, MODEL.vocab_size), k=num_tokens)


def answer_alone(spec: RequestSpec) -> list[int]:
    """The oracle: the whole answer by one engine, one token after the other, nothing shared."""
    engine = EmulatedEngine(num_blocks=256, block_size_tokens=BLOCK_SIZE_TOKENS, model=MODEL)
    table = list(range(256))
    tokens, output = list(spec.prompt_token_ids), list[int]()
    num_context = 0
    while True:
        sample = SampleRequest(
            params=spec.sampling,
            index=len(output),
            prompt_token_ids=spec.prompt_token_ids,
            output_token_ids=output,
            banned_token_ids=spec.stop.banned_token_ids(len(output)),
        )
        piece = Slice(token_ids=tokens[num_context:], num_context_tokens=num_context, block_table=table, sample=sample)
        [sampled] = engine.step([piece])
        assert sampled is not None
        num_context = len(tokens)
        tokens.append(sampled.token_id)
        output.append(sampled.token_id)
        if spec.stop.finish_reason(len(output), sampled.token_id):
            return output


class LossyBus(Bus):
    """Runs scripts, and then loses some of the answers: the caller sees BusError though the script was executed."""

    def __init__(self, url: str, installation: str, *, lose: float, seed: int) -> None:
        super().__init__(url, installation, block_ms=TIMING.block_ms)
        self._lose = lose
        self._random = random.Random(seed)
        self.num_lost = 0

    async def run(self, script: str, *args: Argument, timeout_s: float | None = None) -> Any:
        answer = await super().run(script, *args, timeout_s=timeout_s)
        if script not in ("register", "heartbeat") and self._random.random() < self._lose:
            self.num_lost += 1
            raise BusError(f"the answer of {script} was lost on purpose")
        return answer


@dataclass
class Member:
    """One worker host of the cluster."""

    host: WorkerHost
    machine: Machine
    bus: Bus
    task: asyncio.Task[None]
    stop: Stop
    is_closed: bool = field(default=False)

    @property
    def life(self) -> Life:
        assert self.host.life is not None
        return self.host.life

    @property
    def worker_id(self) -> str:
        return self.life.worker_id


class EmulatedCluster:
    """Use as an async context manager; on leaving, every ledger must balance to zero."""

    def __init__(self, redis_url: str, installation: str, kv_dir: Path) -> None:
        self._url = redis_url
        self._installation = InstallationConfig(name=installation, redis_url=redis_url)
        self._kv_dir = kv_dir
        self.members: list[Member] = []
        self._num_started = 0
        self._owner_bus = Bus(redis_url, installation, block_ms=TIMING.block_ms)
        self.owner = RequestOwner(self._owner_bus, TIMING)
        self._owner_draining = asyncio.Event()
        self._owner_task: asyncio.Task[None] | None = None
        self.bus = self._owner_bus

    async def __aenter__(self) -> EmulatedCluster:
        await self._owner_bus.open()
        self._owner_task = asyncio.create_task(self.owner.run(self._owner_draining))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.settle()
                for member in self.members:
                    member.stop.begin()
                async with asyncio.timeout(10):
                    for member in self.members:
                        await member.task
        finally:
            for member in list(self.members):
                await self.kill(member)
            assert self._owner_task is not None
            self._owner_draining.set()
            if kind is not None:
                self._owner_task.cancel()
            await asyncio.wait((self._owner_task,), timeout=10)
            self._owner_task.cancel()
            await self._owner_bus.close()

    async def add(
        self,
        role: Role,
        *,
        num_blocks: int = 128,
        max_batch_tokens: int = 64,
        max_num_seqs: int = 16,
        bus: Bus | None = None,
        engine_type: type[EmulatedEngine] = EmulatedEngine,
        is_staging: bool = False,
    ) -> Member:
        """Start a worker with an emulated engine and return when it is registered."""
        num_arena_blocks = num_staging_blocks(MODEL, num_blocks, BLOCK_SIZE_TOKENS) if is_staging else num_blocks
        arena = self.make_arena(num_arena_blocks, emulated_block_bytes(BLOCK_SIZE_TOKENS))
        engine = engine_type(
            num_blocks=num_blocks,
            block_size_tokens=BLOCK_SIZE_TOKENS,
            pool=None if is_staging else arena.data,
            model=MODEL,
        )
        threads = new_threads()
        machine = make_machine(engine, arena=arena, is_staging=is_staging, layout=EMULATED_LAYOUT, threads=threads)
        return await self.start(
            machine, role, max_batch_tokens=max_batch_tokens, max_num_seqs=max_num_seqs, bus=bus or self.make_bus()
        )

    def make_bus(self) -> Bus:
        return Bus(self._url, self._installation.name, block_ms=TIMING.block_ms)

    def make_arena(self, num_blocks: int, block_bytes: int) -> Arena:
        return Arena(
            directory=str(self._kv_dir),
            installation=self._installation.name,
            worker_id=new_worker_id("w"),
            num_blocks=num_blocks,
            block_bytes=block_bytes,
        )

    async def start(
        self, machine: Machine, role: Role, *, max_batch_tokens: int, max_num_seqs: int, bus: Bus
    ) -> Member:
        """Start a worker on `machine`, which the cluster closes, and return when it is registered."""
        config = WorkerConfig(
            model="any",
            role=role,
            kv_dir=str(self._kv_dir),
            max_batch_tokens=max_batch_tokens,
            max_num_seqs=max_num_seqs,
            block_size_tokens=machine.engine.block_size_tokens,
        )
        await bus.open()
        self._num_started += 1
        name = f"{role.value}{self._num_started}"
        host = WorkerHost(bus, machine, installation=self._installation, config=config, timing=TIMING, name=name)
        stop = Stop(drain_deadline_s=TIMING.drain_deadline_s)
        task = asyncio.create_task(host.run(stop))
        member = Member(host=host, machine=machine, bus=bus, task=task, stop=stop)
        self.members.append(member)
        await wait_until(lambda: host.ready() is None or task.done(), what=f"{name} registers")
        if task.done():
            await task
        return member

    async def kill(self, member: Member) -> None:
        """End a worker without a word to anybody: its heartbeat lapses, its pool goes."""
        if member.is_closed:
            return
        member.is_closed = True
        member.task.cancel()
        await asyncio.wait((member.task,))
        error = None if member.task.cancelled() else member.task.exception()
        member.machine.pool.ledger.check()
        assert member.machine.pool.ledger.is_idle, member.machine.pool.ledger.counts()
        member.machine.close()
        await member.bus.close()
        self.members.remove(member)
        if error is not None:
            raise error

    async def ask(self, *specs: RequestSpec) -> list[Answer]:
        """Submit requests and return their answers, which fill as tokens come."""
        await wait_until(lambda: self.owner.is_ready() is None, what="the installation is ready")
        answers = [Answer() for _ in specs]
        self.owner.submit(specs, answers)
        return answers

    async def ask_and_check(self, *specs: RequestSpec, deadline_s: float = 20.0) -> list[Answer]:
        """Submit requests, wait for the answers, and hold each against the oracle."""
        answers = await self.ask(*specs)
        await self.check(specs, answers, deadline_s=deadline_s)
        return answers

    async def check(self, specs: Sequence[RequestSpec], answers: Sequence[Answer], *, deadline_s: float = 20.0) -> None:
        await wait_until(lambda: all(a.has_ended for a in answers), deadline_s=deadline_s, what="all answers end")
        for spec, answer in zip(specs, answers, strict=True):
            assert answer.error is None, answer.error
            assert answer.token_ids == answer_alone(spec), f"{spec.request_id} differs from the undisturbed run"

    async def settle(self) -> None:
        """Wait until no worker has anything left: no sequence, no loan, no promise."""
        await wait_until(
            lambda: all(m.life.is_idle and m.machine.pool.ledger.is_idle for m in self.members),
            deadline_s=10,
            what="all ledgers balance to zero",
        )
