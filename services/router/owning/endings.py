"""The ends of requests: written to their records, written again should Redis forget them, and logged in one canonical line."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from brigade.bus.client import Bus
from brigade.bus.inspect import request_record
from brigade.bus.requests import RequestStore
from brigade.core.errors import BusError
from brigade.core.request import RequestState
from services.router.owning.owned import Owned

log = structlog.get_logger()

FORGETTABLE_S = 10.0
"""How far back an end may be forgotten by a Redis that restarts or fails over (rule 2e): several times the second between
two fsyncs, or a replica's lag."""
RESEND_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended here. `attempt` is the highest ever used: no raise sent before may reopen it (rule 22)."""

    request_id: str
    attempt: int
    state: RequestState
    reason: str
    ended_s: float


class Endings:
    """What has ended lately. `spawn` runs work beside the caller."""

    def __init__(self, bus: Bus, spawn: Callable[[Coroutine[None, None, None]], None]) -> None:
        self._bus = bus
        self._spawn = spawn
        self._lately: deque[Ended] = deque()

    def note(self, request: Owned, state: RequestState, reason: str) -> Ended:
        """Remember that a request has ended, and log it."""
        ended = Ended(request.request_id, request.highest_attempt, state, reason, time.time())
        self._lately.append(ended)
        while self._lately[0].ended_s < ended.ended_s - FORGETTABLE_S:
            self._lately.popleft()
        self._spawn(self._log_line(request, ended))
        return ended

    def write(self, store: RequestStore, ended: Ended) -> None:
        """Say in the record that the owner has ended it, wherever it is held."""
        self._spawn(self._write(store, ended))

    def write_all_again(self, store: RequestStore) -> None:
        """Another server answers: end again what had ended."""
        for ended in self._lately:
            self.write(store, ended)

    async def _write(self, store: RequestStore, ended: Ended) -> None:
        while True:
            incarnation = self._bus.incarnation
            try:
                await store.conclude(ended.request_id, attempt=ended.attempt, state=ended.state, reason=ended.reason)
            except BusError as e:
                log.warning("conclusion_unanswered", request_id=ended.request_id, error=str(e))
                await asyncio.sleep(RESEND_PAUSE_S)
                continue
            if self._bus.incarnation == incarnation:
                return

    async def _log_line(self, request: Owned, ended: Ended) -> None:
        try:
            record = await request_record(self._bus, request.request_id) or {}
        except BusError as e:
            record = {"record_error": str(e)}
        stamps = {k: round(float(v), 6) for k, v in record.items() if k.startswith("t_")}
        log.info(
            "request",
            request_id=request.request_id,
            state=str(ended.state),
            reason=ended.reason,
            priority_class=request.spec.priority_class,
            isl=len(request.spec.prompt_token_ids),
            osl=len(request.accepted),
            attempts=request.highest_attempt,
            prefill_worker=record.get("prefiller", ""),
            decode_worker=record.get("holder", ""),
            t_received=round(request.spec.arrival_s, 6),
            t_first_token=request.first_token_s and round(request.first_token_s, 6),
            t_last_token=round(ended.ended_s, 6),
            **stamps,
        )
