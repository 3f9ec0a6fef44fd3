"""Reads this worker's control stream: hints that make things happen before the next heartbeat would."""

from __future__ import annotations

import structlog

from brigade.bus.client import Bus
from brigade.bus.registry import WorkerLease
from brigade.core.errors import BusError
from brigade.core.messages import ControlKind, ControlMessage
from brigade.kv.pool import KVPool
from brigade.runtime.bell import Bell
from services.decode.role import DecodeRole
from services.prefill.role import PrefillRole
from services.worker.heartbeat import Heartbeat


class Control:
    """Acts on hints. A lost one costs at most a heartbeat."""

    def __init__(
        self,
        bus: Bus,
        lease: WorkerLease,
        heartbeat: Heartbeat,
        prefill: PrefillRole,
        decode: DecodeRole,
        pool: KVPool,
        *,
        bell: Bell,
    ) -> None:
        self._bus = bus
        self._lease = lease
        self._heartbeat = heartbeat
        self._prefill = prefill
        self._decode = decode
        self._pool = pool
        self._bell = bell

    async def run(self) -> None:
        incarnation = self._bus.incarnation
        while True:
            seen = self._bell.num_rings
            if incarnation != self._bus.incarnation:
                incarnation = self._bus.incarnation
                self._lease.forget_cursor()
            try:
                for message in await self._lease.read_control():
                    self._act(message)
            except BusError as error:
                structlog.get_logger().debug("control_not_read", error=str(error))
                await self._bell.wait(after=seen)  # rung by the next heartbeat, answered or not

    def _act(self, message: ControlMessage) -> None:
        if message.kind is ControlKind.DROP:
            self._prefill.drop({message.key})
            self._decode.drop({message.key})
        elif message.kind is ControlKind.RELEASE:
            self._pool.end_loan(message.key)
        elif message.kind is ControlKind.ROLE:
            self._heartbeat.hurry()
