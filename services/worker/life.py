"""One registration of a worker: an id, the tasks that work under it, and how it ends."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine
from typing import Any

import structlog

from brigade.bus.client import Bus
from brigade.bus.registry import WorkerLease
from brigade.core.config import TimingConfig, WorkerConfig
from brigade.core.errors import BusError
from brigade.core.messages import Role
from brigade.kv.pool import KVPool
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from brigade.runtime.service import Stop
from services.decode.role import DecodeRole
from services.prefill.role import PrefillRole
from services.worker.control import Control
from services.worker.heartbeat import Heartbeat
from services.worker.machine import Machine, sweep_dead_pools
from services.worker.roles import RoleMachine
from services.worker.step_loop import StepLoop

LEAVE_MARGIN_S = 2.0
"""What is kept of the drain deadline for giving back and leaving the registry."""


class Ending(enum.Enum):
    """Why a life ends."""

    LEFT = "left"
    """The process was asked to stop."""
    DRAINED = "drained"
    """The janitor has taken this id for dead: everything is dropped, and the worker comes back under a new one."""


class Life:
    """Builds the roles for one worker id, runs them, and gives up every block when it ends, however it ends."""

    def __init__(
        self,
        bus: Bus,
        machine: Machine,
        *,
        worker_id: str,
        role: Role,
        epoch: int,
        installation: str,
        config: WorkerConfig,
        timing: TimingConfig,
    ) -> None:
        self.worker_id = worker_id
        self.is_registered = False
        self._sweeping = (machine, config.kv_dir, installation)
        self._bus = bus
        self._pool: KVPool = machine.pool
        self._bell, self._step_bell = Bell(), Bell()
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        common: dict[str, Any] = {
            "worker_id": worker_id,
            "record_ttl_s": timing.record_ttl_s,
            "bell": self._bell,
            "step_bell": self._step_bell,
            "spawn": self._spawn,
        }
        self.decode = DecodeRole(bus, machine.pool, max_num_seqs=config.max_num_seqs, **common)
        self.prefill = PrefillRole(
            bus,
            machine.pool,
            max_batch_tokens=config.max_batch_tokens,
            is_saturated=lambda: self.decode.intake.is_saturated,
            **common,
        )
        self.lease = WorkerLease(bus, worker_id, ttl_s=timing.heartbeat_ttl_s)
        self.roles = RoleMachine(
            self.lease, self.prefill, self.decode, role=role, epoch=epoch, bell=self._bell, step_bell=self._step_bell
        )
        self.heartbeat = Heartbeat(
            bus,
            self.lease,
            self.roles,
            self.prefill,
            self.decode,
            machine,
            worker_id=worker_id,
            max_num_seqs=config.max_num_seqs,
            timing=timing,
            bell=self._bell,
        )
        self._control = Control(
            bus, self.lease, self.heartbeat, self.prefill, self.decode, machine.pool, bell=self._bell
        )
        self._step_loop = StepLoop(
            machine.engine,
            machine.engine_thread,
            self.decode.batch,
            self.prefill.batch,
            max_batch_tokens=config.max_batch_tokens,
            bell=self._step_bell,
            on_idle=machine.on_idle,
        )

    @property
    def is_idle(self) -> bool:
        """Whether no request is here in any form, KV that waits for its reader included."""
        return self.prefill.is_idle and self.decode.is_idle and not self._pool.loan_keys()

    @property
    def num_steps(self) -> int:
        return self._step_loop.num_steps

    @property
    def num_evictions(self) -> int:
        return self._pool.ledger.counts().num_evictions

    async def run(self, stop: Stop) -> Ending:
        """Register and work until the process is to stop or the registry has written this id off."""
        self._pool.on_room = self._on_room
        try:
            async with asyncio.TaskGroup() as self._group:
                if not await self._register(stop):
                    return Ending.LEFT
                for work in (
                    self.heartbeat.run(),
                    self._control.run(),
                    self.roles.run(),
                    self.prefill.run(),
                    self.prefill.watch_queue(),
                    self.decode.intake.read(),
                    self.decode.intake.admit(),
                    self.decode.outbox.run(),
                    self._step_loop.run(),
                    sweep_dead_pools(*self._sweeping),
                ):
                    self._spawn(work)
                ending = await self._wait_for_end(stop)
                for task in list(self._tasks):
                    task.cancel()
            return ending
        finally:
            self._group = None
            self.is_registered = False
            await self._pool.quiet()
            self.prefill.clear()
            self.decode.clear()
            self._pool.end_all_loans()

    def _on_room(self) -> None:
        self._bell.ring()
        self._step_bell.ring()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the others; it is cancelled when the life ends, and its failure ends the worker."""
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register(self, stop: Stop) -> bool:
        """Enter the registry; False when the process is to stop before Redis has answered."""
        registering = asyncio.ensure_future(self.heartbeat.register())
        stopping = asyncio.ensure_future(stop.draining.wait())
        try:
            await asyncio.wait((registering, stopping), return_when=asyncio.FIRST_COMPLETED)
            self.is_registered = registering.done()
            if self.is_registered:
                await registering
            return self.is_registered
        finally:
            registering.cancel()
            stopping.cancel()

    async def _wait_for_end(self, stop: Stop) -> Ending:
        drained = asyncio.ensure_future(self.heartbeat.drained.wait())
        stopping = asyncio.ensure_future(stop.draining.wait())
        try:
            await asyncio.wait((drained, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()
            stopping.cancel()
        if self.heartbeat.drained.is_set():
            return Ending.DRAINED
        await self._leave(stop)
        return Ending.LEFT

    async def _leave(self, stop: Stop) -> None:
        """Finish what is in flight as far as the deadline allows, give back the rest, leave the registry."""
        log = structlog.get_logger()
        try:
            async with asyncio.timeout(max(0.0, stop.remaining_s() - LEAVE_MARGIN_S)):
                self.roles.leave()
                if self.is_idle and not self._bus.is_settled(0.0):
                    return  # Redis is away and nothing is here: the heartbeat ends by itself
                await until_answered(self.lease.start_draining)
                await self.prefill.leave()
                while not self.is_idle and not self.heartbeat.drained.is_set():
                    await self._bell.wait(after=self._bell.num_rings)
        except TimeoutError:
            log.warning("left_with_work", num_prefills=len(self.prefill.keys()), num_decodes=len(self.decode.keys()))
        try:
            async with asyncio.timeout(LEAVE_MARGIN_S):
                await self.prefill.give_back_all()
                await self.lease.deregister()
                log.info("worker_left", worker_id=self.worker_id)
        except (TimeoutError, BusError) as error:
            log.warning("not_deregistered", error=str(error))
