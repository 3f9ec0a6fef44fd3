"""The balancer's side: one leader by lease and term, desired roles, and operators' wishes."""

from __future__ import annotations

from brigade.bus.client import Bus
from brigade.core.messages import Role, RoleIntent


class Leadership:
    """One balancer's claim to lead. `term` 0 means that it does not lead as far as it knows."""

    def __init__(self, bus: Bus, nonce: str, *, ttl_s: float) -> None:
        self._bus = bus
        self._nonce = nonce
        self._ttl_ms = int(ttl_s * 1000)
        self.term = 0

    async def renew(self) -> int:
        """Take or renew the lease. Returns the term, 0 when another leads. Raises BusError."""
        self.term = int(await self._bus.run("lead", self._nonce, self._ttl_ms, 0, timeout_s=self._ttl_ms / 1000))
        return self.term

    async def resign(self) -> None:
        await self._bus.run("lead", self._nonce, self._ttl_ms, 1)
        self.term = 0

    async def set_role(self, worker_id: str, role: Role, *, highest_epoch: int) -> int | str:
        """Write a desired role. Returns its epoch, or NOT_LEADER, UNKNOWN_WORKER or DEAD_WORKER. Raises BusError."""
        answer = await self._bus.run("set_role", self._nonce, self.term, worker_id, role, highest_epoch)
        return answer if isinstance(answer, int) else str(answer.decode())


async def post_intent(bus: Bus, intent: RoleIntent) -> None:
    """Leave an operator's wish for the leading balancer. Raises BusError."""
    await bus.command(
        "XADD",
        bus.keys.intents,
        "MAXLEN",
        "~",
        1000,
        "*",
        "w",
        intent.worker_id,
        "role",
        intent.role,
        "reason",
        intent.reason,
    )


async def take_intents(bus: Bus) -> list[RoleIntent]:
    """Return operators' wishes and delete them: each is decided upon once, by the leader that read it. Raises BusError."""
    entries = await bus.command("XRANGE", bus.keys.intents, "-", "+", "COUNT", 100)
    intents = []
    for entry_id, fields in entries:
        if await bus.command("XDEL", bus.keys.intents, entry_id):
            f = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
            intents.append(
                RoleIntent(worker_id=f[b"w"].decode(), role=Role(f[b"role"].decode()), reason=f[b"reason"].decode())
            )
    return intents
