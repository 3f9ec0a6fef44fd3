"""The balancer's side: one leader by lease and term, desired roles, and operators' wishes."""

from __future__ import annotations

from brigade.bus.client import Bus, entries_in
from brigade.bus.frames import bury
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
    """Return operators' wishes and delete them, for the leader. A wish may be seen twice (a second role script of the same
    wish changes nothing); it is not lost with the reply of its deletion. Raises BusError."""
    intents = []
    for entry_id, f in entries_in(await bus.command("XRANGE", bus.keys.intents, "-", "+", "COUNT", 100)):
        try:
            worker_id, role, reason = (f[name].decode() for name in (b"w", b"role", b"reason"))
            intents.append(RoleIntent(worker_id=worker_id, role=Role(role), reason=reason))
        except (KeyError, ValueError) as e:
            await bury(bus, bus.keys.intents, f"role intent: {e}", repr(f).encode())
        await bus.command("XDEL", bus.keys.intents, entry_id)
    return intents
