"""Cleaning up after processes that have died. Every router and every balancer does it; it is harmless to do it twice."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from brigade.bus.client import Bus

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class JanitorReport:
    """What one sweep found."""

    requests_cancelled: int
    entries_dropped: int
    workers_removed: int
    routers_removed: int


async def sweep_dead(bus: Bus, *, record_ttl_s: float) -> JanitorReport:
    """Clean up after whoever has no heartbeat at this moment. `Janitor` looks twice before it does. Raises BusError."""
    report, _ = await _sweep(bus, int(record_ttl_s * 1000), None)
    return report


async def _sweep(bus: Bus, ttl_ms: int, suspects: Collection[str] | None) -> tuple[JanitorReport, frozenset[str]]:
    """Clean up after those of `suspects` (None: after all) that have no heartbeat; tell who has none."""
    ids: tuple[str | int, ...] = (-1,) if suspects is None else (len(suspects), *suspects)
    *counts, absent = await bus.run("janitor", ttl_ms, *ids, *bus.keys.streams)
    report = JanitorReport(
        requests_cancelled=counts[0], entries_dropped=counts[1], workers_removed=counts[2], routers_removed=counts[3]
    )
    return report, frozenset(member.decode() for member in absent)


class Janitor:
    """Sweeps about twice a heartbeat TTL, and never within one TTL of a reconnect: then no heartbeat may be back (rule 24).

    Redis or the machine may also stand still without breaking a connection, and the script may be executed after that, with
    all heartbeats gone. So only who was absent at the look before is taken for dead: who lives has beaten in between.
    """

    def __init__(self, bus: Bus, *, heartbeat_ttl_s: float, record_ttl_s: float) -> None:
        self._bus = bus
        self._heartbeat_ttl_s = heartbeat_ttl_s
        self._record_ttl_s = record_ttl_s
        self._due_s = 0.0
        self._suspects: frozenset[str] = frozenset()

    async def sweep_if_due(self) -> JanitorReport | None:
        """Sweep, or return None when it is not time. Raises BusError."""
        now_s = time.monotonic()
        if now_s < self._due_s or not self._bus.is_settled(self._heartbeat_ttl_s):
            return None
        self._due_s = now_s + self._heartbeat_ttl_s / 2
        suspects, self._suspects = self._suspects, frozenset()
        report, absent = await _sweep(self._bus, int(self._record_ttl_s * 1000), suspects)
        self._suspects = absent
        if report != JanitorReport(requests_cancelled=0, entries_dropped=0, workers_removed=0, routers_removed=0):
            log.info(
                "janitor",
                requests_cancelled=report.requests_cancelled,
                entries_dropped=report.entries_dropped,
                workers_removed=report.workers_removed,
                routers_removed=report.routers_removed,
            )
        return report
