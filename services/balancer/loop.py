"""Observe, decide, publish: one tick of the balancer. It writes desired roles only; workers carry them out."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from brigade.bus.client import Bus
from brigade.bus.janitor import Janitor
from brigade.bus.leadership import Leadership, take_intents
from brigade.bus.registry import list_workers
from brigade.core.config import BalancerConfig, TimingConfig
from brigade.core.errors import BusError
from brigade.core.messages import RoleIntent, WorkerView
from brigade.policies.role_intents import Verdict, decide_intent

log = structlog.get_logger()


class BalancerMetrics:
    """What a balancer shows on /metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.is_leader = Gauge("brigade_balancer_is_leader", "1 while this balancer leads", registry=registry)
        self.workers = Gauge("brigade_workers", "Living workers", ["role"], registry=registry)
        self.intents = Counter("brigade_role_intents", "Operators' role wishes decided", ["verdict"], registry=registry)
        self.janitor = Counter("brigade_janitor", "Things cleaned up after dead processes", ["what"], registry=registry)


class Balancer:
    """One balancer process."""

    def __init__(self, bus: Bus, config: BalancerConfig, timing: TimingConfig, metrics: BalancerMetrics) -> None:
        self._bus = bus
        self._config = config
        self._timing = timing
        self._metrics = metrics
        self._leadership = Leadership(bus, secrets.token_hex(8), ttl_s=config.lease_ttl_s)
        self._highest_epoch = 0
        self._janitor = Janitor(bus, heartbeat_ttl_s=timing.heartbeat_ttl_s, record_ttl_s=timing.record_ttl_s)

    async def run(self, draining: asyncio.Event) -> None:
        """Tick until `draining` is set, then resign so that another leads at once."""
        while not draining.is_set():
            try:
                await self.tick()
            except BusError as e:
                log.warning("tick_unanswered", error=str(e))
            try:
                async with asyncio.timeout(self._config.tick_s):
                    await draining.wait()
            except TimeoutError:
                continue
        if self._leadership.term:
            await self._leadership.resign()

    async def tick(self) -> None:
        """Look at the installation once and act on it."""
        await self._sweep()
        if not self._bus.is_settled(self._timing.heartbeat_ttl_s):
            return  # after an outage no heartbeat is back yet: nobody leads
        term_before = self._leadership.term
        term = await self._leadership.renew()
        self._metrics.is_leader.set(int(term > 0))
        if term and term != term_before:
            log.info("leads", term=term)
        workers = await list_workers(self._bus)
        # epochs never go below the highest seen, whatever Redis remembers
        self._highest_epoch = max([self._highest_epoch, *(max(w.epoch, w.desired_epoch) for w in workers)])
        for role in ("prefill", "decode", "mixed"):
            self._metrics.workers.labels(role=role).set(sum(w.is_alive and w.role == role for w in workers))
        if term:
            for intent in await take_intents(self._bus):
                await self._decide(workers, intent)
                workers = await list_workers(self._bus)

    async def _decide(self, workers: list[WorkerView], intent: RoleIntent) -> None:
        decision = decide_intent(workers, intent)
        self._metrics.intents.labels(verdict=decision.verdict.name.lower()).inc()
        answer: int | str = decision.verdict.name
        if decision.verdict is Verdict.ACCEPTED:
            answer = await self._leadership.set_role(intent.worker_id, intent.role, highest_epoch=self._highest_epoch)
            if isinstance(answer, int):
                self._highest_epoch = answer
        log.info(
            "role_intent", worker_id=intent.worker_id, role=str(intent.role), answer=answer, reason=decision.reason
        )

    async def _sweep(self) -> None:
        report = await self._janitor.sweep_if_due()
        for what, number in asdict(report).items() if report else ():
            self._metrics.janitor.labels(what=what).inc(number)
