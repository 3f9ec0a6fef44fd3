"""Who lives and in which role: registration, heartbeats, the control stream, and role changes."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from brigade.bus.client import Argument, Bus
from brigade.bus.codec import decode_control, decode_status, encode_status
from brigade.bus.frames import bury
from brigade.core.errors import DecodeError
from brigade.core.messages import AttemptKey, ControlMessage, Role, WorkerStatus, WorkerView


class Lease(enum.StrEnum):
    """What the registry says of a worker that sends its heartbeat."""

    OK = "OK"
    LAPSED = "LAPSED"
    """The key had gone, nobody has cleaned up: register again, nothing is lost."""
    DRAINED = "DRAINED"
    """The janitor has cleaned up: drop everything and take a new id (rule 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """`ended` are held attempts that have ended or moved on; `loans_ended` loans the records end; `loans_orphaned` loans
    whose reader has no heartbeat (not to be ended within one TTL of one's own reconnect)."""

    lease: Lease
    desired_role: Role | None = None
    desired_epoch: int = 0
    ended: frozenset[AttemptKey] = frozenset()
    loans_ended: frozenset[AttemptKey] = frozenset()
    loans_orphaned: frozenset[AttemptKey] = frozenset()


class WorkerLease:
    """One worker's own place in the registry."""

    def __init__(self, bus: Bus, worker_id: str, *, ttl_s: float) -> None:
        self._bus = bus
        self._worker = worker_id
        self._ttl_ms = int(ttl_s * 1000)
        self._control_cursor = "0"

    async def register(self, role: Role, epoch: int, status: WorkerStatus) -> tuple[Role | None, int]:
        """Enter the registry with the role that this process has. Returns desired role and epoch. Raises BusError."""
        role_name, desired_epoch = await self._bus.run(
            "register", self._worker, self._ttl_ms, role, epoch, encode_status(status)
        )
        return (Role(role_name.decode()) if role_name else None), desired_epoch

    async def beat(
        self, status: WorkerStatus, running: Sequence[AttemptKey], loans: Sequence[AttemptKey]
    ) -> HeartbeatReply:
        """Renew the lease and learn what has ended. Raises BusError."""
        args: list[Argument] = [self._worker, self._ttl_ms, encode_status(status)]
        for kind, keys in (("run", running), ("loan", loans)):
            for request_id, attempt in keys:
                args += [kind, request_id, attempt]
        lease, role, epoch, verdicts = await self._bus.run("heartbeat", *args, timeout_s=self._ttl_ms / 1000)
        if lease != b"OK":
            return HeartbeatReply(lease=Lease(lease.decode()))
        of_running, of_loans = verdicts[: len(running)], verdicts[len(running) :]
        return HeartbeatReply(
            lease=Lease.OK,
            desired_role=Role(role.decode()) if role else None,
            desired_epoch=epoch,
            ended=frozenset(key for key, v in zip(running, of_running, strict=True) if v == ord("x")),
            loans_ended=frozenset(key for key, v in zip(loans, of_loans, strict=True) if v == ord("x")),
            loans_orphaned=frozenset(key for key, v in zip(loans, of_loans, strict=True) if v == ord("d")),
        )

    async def read_control(self) -> list[ControlMessage]:
        """Return hints for this worker, waiting for some. Raises BusError."""
        entries = await self._bus.read(self._bus.keys.control(self._worker), self._control_cursor, count=1000)
        messages = []
        for _, fields in entries:
            kind, request_id, attempt = (fields.get(k, b"").decode(errors="replace") for k in (b"k", b"r", b"a"))
            try:
                messages.append(decode_control(kind, request_id, attempt))
            except DecodeError as e:
                await bury(self._bus, self._bus.keys.control(self._worker), str(e), kind.encode())
        if entries:
            self._control_cursor = entries[-1][0]
        return messages

    def forget_cursor(self) -> None:
        """Read the control stream from its start again: its ids may have gone back."""
        self._control_cursor = "0"

    async def start_draining(self) -> bool:
        """Stop hand-overs to this worker and its claims. False: it must register again first. Raises BusError."""
        return bool(await self._bus.run("drain", self._worker))

    async def switch(self, role: Role, epoch: int) -> str:
        """Take a new role if nothing is left here. Returns OK, BUSY or LAPSED. Raises BusError."""
        answer = await self._bus.run("switch", self._worker, role, epoch, *self._bus.keys.streams)
        return str(answer.decode())

    async def deregister(self) -> None:
        """Leave in good order: the heartbeat ends at once. Raises BusError."""
        await self._bus.run("deregister", "worker", self._worker)


async def list_workers(bus: Bus) -> list[WorkerView]:
    """Return every registered worker, the dead ones not yet cleaned up included. Raises BusError."""
    ids = sorted(w.decode() for w in await bus.command("SMEMBERS", bus.keys.workers))
    if not ids:
        return []
    answers = await bus.pipeline(
        [("HMGET", bus.keys.worker(w), "role", "epoch", "accepting", "status") for w in ids]
        + [("HMGET", bus.keys.role(w), "role", "epoch") for w in ids]
    )
    views = []
    for w, (role, epoch, accepting, status), (desired, desired_epoch) in zip(
        ids, answers[: len(ids)], answers[len(ids) :], strict=True
    ):
        views.append(
            WorkerView(
                worker_id=w,
                role=Role(role.decode()) if role else None,
                epoch=int(epoch or 0),
                accepting=accepting == b"1",
                desired_role=Role(desired.decode()) if desired else None,
                desired_epoch=int(desired_epoch or 0),
                status=_status_of(status),
            )
        )
    return views


def _status_of(data: bytes | None) -> WorkerStatus | None:
    """Decode a status. None without one, and for a worker that speaks another version: nothing can be placed on it, and
    it must not hide the others."""
    try:
        return decode_status(data) if data else None
    except DecodeError:
        return None
