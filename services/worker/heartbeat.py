"""Says that the worker lives, and acts on what the registry answers: ended attempts, ended loans, a desired role."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

import structlog

from brigade.bus.client import Bus
from brigade.bus.registry import HeartbeatReply, Lease, WorkerLease
from brigade.core.config import TimingConfig
from brigade.core.errors import BusError
from brigade.core.messages import WorkerStatus
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.decode.role import DecodeRole
from services.prefill.role import PrefillRole
from services.worker.machine import Machine
from services.worker.roles import RoleMachine, RoleState


class Heartbeat:
    """`bell` is rung after every beat, answered or not. `drained` is set when the janitor has cleaned up after this id."""

    def __init__(
        self,
        bus: Bus,
        lease: WorkerLease,
        roles: RoleMachine,
        prefill: PrefillRole,
        decode: DecodeRole,
        machine: Machine,
        *,
        worker_id: str,
        max_num_seqs: int,
        timing: TimingConfig,
        bell: Bell,
    ) -> None:
        self._bus = bus
        self._lease = lease
        self._roles = roles
        self._prefill = prefill
        self._decode = decode
        self._machine = machine
        self._pool = machine.pool
        self._worker_id = worker_id
        self._max_num_seqs = max_num_seqs
        self._timing = timing
        self._bell = bell
        self._started_s = time.time()
        self._look_at_s = 0.0
        self.drained = asyncio.Event()
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Beat now: a hint says that the answer has news."""
        self._hurried.set()

    async def register(self) -> None:
        """Enter the registry with the present role and epoch."""

        async def call() -> None:
            await self._bus.prepare()
            desired = await self._lease.register(self._roles.role, self._roles.epoch, self.status())
            if self._roles.state is RoleState.LEAVING:
                await self._lease.start_draining()
            await self._prefill.targets.refresh()
            self._roles.on_registered(*desired)

        await until_answered(call)
        structlog.get_logger().info(
            "worker_registered", worker_id=self._worker_id, role=self._roles.role.value, epoch=self._roles.epoch
        )

    async def run(self) -> None:
        """Beat until cancelled or written off."""
        while not self.drained.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.heartbeat_interval_s):
                    await self._hurried.wait()
            self._hurried.clear()
            try:
                await self._beat()
            except BusError as error:
                structlog.get_logger().warning("heartbeat_failed", error=str(error))
                self._prefill.claiming.doubt()
                self._decode.intake.doubt()
            self._bell.ring()

    def status(self) -> WorkerStatus:
        counts = self._pool.ledger.counts()
        model = self._pool.engine.model
        emulation, lag = self._machine.emulation, self._machine.lag
        return WorkerStatus(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            model=model.name,
            model_revision=model.revision,
            num_blocks=counts.num_blocks,
            block_size_tokens=self._pool.block_size_tokens,
            num_free_blocks=counts.num_free + counts.num_cached,
            num_lent_blocks=counts.num_lent,
            num_reserved_blocks=counts.num_reserved,
            num_prefilling=self._prefill.batch.num_sequences + self._prefill.handing.num_open,
            num_prefill_tokens=self._prefill.batch.num_left_tokens,
            num_waiting_decode=self._decode.intake.num_waiting,
            num_decoding=self._decode.batch.num_sequences,
            max_num_seqs=self._max_num_seqs,
            max_model_len_tokens=model.max_model_len_tokens,
            started_s=self._started_s,
            sent_s=time.time(),
            emulates="" if emulation is None else emulation.profile,
            time_scale=1.0 if emulation is None else emulation.time_scale,
            median_step_s=0.0 if emulation is None else emulation.pace.median_s(),
            num_lag_looks=0 if lag is None else lag.num_looks,
            total_lag_s=0.0 if lag is None else lag.total_s,
        )

    async def _beat(self) -> None:
        running = list(dict.fromkeys(self._prefill.keys() + self._decode.keys()))
        reply = await self._lease.beat(self.status(), running, self._pool.loan_keys())
        if reply.lease is Lease.DRAINED:
            structlog.get_logger().warning("worker_written_off", worker_id=self._worker_id)
            self.drained.set()
        elif reply.lease is Lease.LAPSED:
            structlog.get_logger().warning("lease_lapsed", worker_id=self._worker_id)
            await self.register()
        else:
            self._act(reply)
            self._look_now_and_then()
            await self._prefill.targets.refresh()

    def _look_now_and_then(self) -> None:
        """A script that its sender gave up may be executed later, and no error tells of it (rule 4)."""
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + self._timing.heartbeat_ttl_s
            self._prefill.claiming.doubt()
            self._decode.intake.look()

    def _act(self, reply: HeartbeatReply) -> None:
        """Drop what has ended and end loans by their records (rules 11, 16)."""
        if reply.ended:
            self._prefill.drop(reply.ended)
            self._decode.drop(reply.ended)
        for key in reply.loans_ended:
            self._pool.end_loan(key)
        if self._bus.is_settled(self._timing.heartbeat_ttl_s):
            for key in reply.loans_orphaned:
                self._pool.end_loan(key)
        if reply.desired_role is not None:
            self._roles.desire(reply.desired_role, reply.desired_epoch)
