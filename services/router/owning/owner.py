"""The owner of requests: the table, the lease, the frame reader, the watch over holders, and every new attempt.

One router process has one owner. Frames of all its requests come in one stream and are applied in order by one task.
Whatever needs a script is done by one short task per request, which sends it again until it is answered. Nothing here
knows HTTP or text: answers leave through their sinks. The rules that the numbers name are in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence

import structlog

from brigade.bus.client import Bus
from brigade.bus.frames import FrameReader
from brigade.bus.janitor import Janitor
from brigade.bus.registry import list_workers
from brigade.bus.requests import LeaseLapsed, RequestStore
from brigade.core.answer import AcceptedTokens, AnswerSink
from brigade.core.config import TimingConfig
from brigade.core.errors import BusError, Unavailable
from brigade.core.messages import FramePart, PullFailed, TokensPart, WorkerView
from brigade.core.request import RequestSpec, RequestState
from services.router.owning.endings import RESEND_PAUSE_S, Ended, Endings
from services.router.owning.owned import Owned, Phase

log = structlog.get_logger()

RETRY_AFTER_S = 2.0


class RequestOwner:
    """Implements brigade.core.answer.Owner. `run` must be running for anything to happen."""

    def __init__(self, bus: Bus, timing: TimingConfig, *, name: str = "router") -> None:
        self._bus = bus
        self._timing = timing
        self._name = name
        self._owned: dict[str, Owned] = {}
        self._endings = Endings(bus, self._spawn)
        self._janitor = Janitor(bus, heartbeat_ttl_s=timing.heartbeat_ttl_s, record_ttl_s=timing.record_ttl_s)
        self._workers: list[WorkerView] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._is_draining = False
        self._all_ended = asyncio.Event()
        self._acted_incarnation = 0
        self._enlist()

    def _enlist(self) -> None:
        """Take a new identity: an id is never used twice (rule 5)."""
        self.router_id = f"{self._name}-{secrets.token_hex(4)}"
        self._store = RequestStore(self._bus, self.router_id, record_ttl_s=self._timing.record_ttl_s)
        self._frames = FrameReader(self._bus, self.router_id)

    # -- what the HTTP surface asks --------------------------------------------------------------------------------------

    @property
    def num_unfinished(self) -> int:
        return len(self._owned)

    @property
    def num_waiting(self) -> int:
        """Unfinished requests that have no token yet."""
        return sum(request.first_token_s is None for request in self._owned.values())

    @property
    def num_running(self) -> int:
        """Unfinished requests that have a token."""
        return self.num_unfinished - self.num_waiting

    @property
    def workers(self) -> Sequence[WorkerView]:
        """The registered workers as last seen."""
        return self._workers

    def max_request_tokens(self) -> int | None:
        """Return the most tokens, prompt and answer, that some living worker can decode, or None when none lives."""
        decoders = [w for w in self._workers if w.role is not None and w.role.decodes]
        return max((w.status.num_blocks * w.status.block_size_tokens for w in decoders if w.status), default=None)

    def is_ready(self) -> str | None:
        """Return None when requests can be served now, else one sentence saying why not."""
        if self._tasks is None or not self._acted_incarnation:
            return "the router is starting"
        if self._is_draining:
            return "the router is leaving"
        if not self._bus.is_settled(0.0):
            return "Redis does not answer"
        alive = [w for w in self._workers if w.is_alive and w.role is not None]
        if not any(w.role and w.role.prefills for w in alive):
            return "no prefill worker is registered"
        if not any(w.role and w.role.decodes for w in alive):
            return "no decode worker is registered"
        return None

    def submit(self, specs: Sequence[RequestSpec], sinks: Sequence[AnswerSink]) -> None:
        """Take ownership of the branches of one client request. Raises Unavailable."""
        not_ready = self.is_ready()
        if not_ready or self._tasks is None:
            raise Unavailable(not_ready or "the router is stopping", retry_after_s=RETRY_AFTER_S)
        owned = [Owned(spec=spec, sink=sink) for spec, sink in zip(specs, sinks, strict=True)]
        for request in owned:
            assert request.request_id not in self._owned, "request ids are unique"
            self._owned[request.request_id] = request
        self._spawn(self._submit(owned))

    def cancel(self, request_id: str) -> None:
        """The client has left: end the request wherever it is. Unknown and ended requests are ignored."""
        request = self._owned.get(request_id)
        if request is not None:
            self._conclude(request, RequestState.CANCELLED, "the client left")

    # -- life ------------------------------------------------------------------------------------------------------------

    async def run(self, draining: asyncio.Event) -> None:
        """Own requests until `draining` is set and the last request has ended."""
        await self._bus.prepare()
        await self._register()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            loops = [tasks.create_task(loop) for loop in (self._read_frames(), self._watch())]
            await draining.wait()
            self._is_draining = True
            if self._owned:
                await self._all_ended.wait()
            for loop in loops:
                loop.cancel()
        self._tasks = None
        await self._store.deregister()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if self._tasks is None:
            work.close()  # stopping: the janitor ends what is left when the lease has gone
        else:
            self._tasks.create_task(work)

    async def _register(self) -> None:
        incarnation = self._bus.incarnation
        await self._store.heartbeat(ttl_s=self._timing.heartbeat_ttl_s, status=b"", first=True)
        self._workers = await list_workers(self._bus)
        self._acted_incarnation = incarnation

    # -- frames ----------------------------------------------------------------------------------------------------------

    async def _read_frames(self) -> None:
        while True:
            if self._bus.incarnation != self._acted_incarnation:
                await self._on_forgetful_redis()
                continue
            try:
                parts = await self._frames.read()
            except BusError as e:
                log.warning("frames_unreadable", error=str(e))
                await asyncio.sleep(RESEND_PAUSE_S)
                continue
            if self._bus.incarnation != self._acted_incarnation:
                continue  # these may be another server's frames: freeze first, then read them again (rule 2a)
            for part in parts:
                self._on_part(part)

    def _on_part(self, part: FramePart) -> None:
        request = self._owned.get(part.request_id)
        if request is None:
            return
        if isinstance(part, PullFailed):
            log.info("attempt_lost", request_id=request.request_id, attempt=part.attempt, reason=part.reason)
            request.refused_attempt = max(request.refused_attempt, part.attempt)
            self._raise_if_refused(request)
        elif request.phase is Phase.OPEN:
            self._apply(request, part)
        else:
            request.hold(part)

    def _apply(self, request: Owned, part: TokensPart) -> None:
        had_gap = request.gap_since_s is not None
        ended_by = request.apply(part, time.time())
        if ended_by == "worker":
            self._end(request, RequestState.FINISHED, request.ended_with)
        elif ended_by == "owner":
            self._conclude(request, RequestState.FINISHED, request.ended_with)
        elif request.is_overfull:
            self._start_raise(request, force=True)
        elif had_gap and request.gap_since_s is None:
            self._apply_held(request)

    def _apply_held(self, request: Owned) -> None:
        for part in request.take_held():
            if request.phase is Phase.OPEN:
                self._apply(request, part)
            elif request.phase is not Phase.ENDED:
                request.hold(part)

    def _open(self, request: Owned) -> None:
        """From here on frames of the present attempt count, those that are held first."""
        request.phase = Phase.OPEN
        self._apply_held(request)
        self._raise_if_refused(request)

    def _raise_if_refused(self, request: Owned) -> None:
        if request.phase is Phase.OPEN and request.refused_attempt == request.attempt:
            self._start_raise(request)

    # -- scripts of one request ------------------------------------------------------------------------------------------

    async def _submit(self, requests: list[Owned]) -> None:
        incarnation = self._acted_incarnation
        error: BusError | None = None
        specs = [request.spec for request in requests]
        try:
            try:
                await self._store.submit(specs)
            except LeaseLapsed:  # this process was held up; unless it was taken for dead, its lease just goes on
                await self._store.heartbeat(ttl_s=self._timing.heartbeat_ttl_s, status=b"", first=False)
                await self._store.submit(specs)
        except BusError as e:
            error = e
        for request in requests:
            if request.phase is not Phase.SUBMITTING:
                continue  # cancelled meanwhile
            if self._bus.incarnation != incarnation:
                # executed and forgotten, or not executed at all: attempt 1 may be taken (rule 2f)
                self._start_raise(request, force=True, is_failure=False)
            elif error is not None:
                request.sink.on_error(
                    Unavailable(f"the request was not accepted: {error}", retry_after_s=RETRY_AFTER_S)
                )
                self._conclude(request, RequestState.CANCELLED, "not accepted in time")
            else:
                self._open(request)

    def _start_raise(self, request: Owned, *, force: bool = False, is_failure: bool = True) -> None:
        """Freeze the request and start its next attempt; nothing happens while one is being started already."""
        if request.phase in (Phase.RAISING, Phase.ENDED):
            return
        request.phase = Phase.RAISING
        request.finished_by_entry = None
        request.num_failures += is_failure
        self._spawn(self._raise(request, force))

    async def _raise(self, request: Owned, force: bool) -> None:
        if request.num_failures >= self._timing.max_attempts:
            request.sink.on_error(Unavailable("the request failed on several workers", retry_after_s=RETRY_AFTER_S))
            self._conclude(request, RequestState.FAILED, f"gave up after {request.num_failures} failed attempts")
            return
        if (reason := request.prefix_reason) is not None:
            # complete, but the frame that says so was lost: recorded FINISHED, not published (rule 7)
            request.sink.on_tokens(AcceptedTokens(offset=len(request.accepted), tokens=(), finish_reason=reason))
            self._conclude(request, RequestState.FINISHED, reason)
            return
        while request.phase is Phase.RAISING:
            new = request.next_attempt()
            incarnation = self._bus.incarnation
            answer = await self._raise_once(request, new, force, incarnation)
            if request.phase is not Phase.RAISING:
                return  # cancelled meanwhile
            if self._bus.incarnation != incarnation or answer == "MISSING":
                request.held.clear()
                force = True
                continue
            self._on_raise_answer(request, new, answer)
            return

    async def _raise_once(self, request: Owned, new: int, force: bool, incarnation: int) -> str:
        """Send one raise until it is answered or another server answers."""
        while request.phase is Phase.RAISING and self._bus.incarnation == incarnation:
            try:
                answer = await self._store.raise_attempt(
                    request.spec, believed=request.attempt, new=new, prefix=request.accepted, force=force
                )
            except BusError as e:
                log.warning("raise_unanswered", request_id=request.request_id, error=str(e))
                await asyncio.sleep(RESEND_PAUSE_S)
                continue
            if answer != "NO_OWNER":
                return answer
            await asyncio.sleep(self._timing.heartbeat_interval_s)  # our own lease first
        return ""

    def _on_raise_answer(self, request: Owned, new: int, answer: str) -> None:
        if answer in ("RAISED", "ALREADY"):
            log.info("attempt_raised", request_id=request.request_id, attempt=new, prefix_tokens=len(request.accepted))
            request.attempt = new
            request.held = [part for part in request.held if part.attempt == new]
            self._open(request)
        elif answer == RequestState.FINISHED:
            # the last frames are held here or still unread; should they be lost, the watch raises with leave to reopen
            self._open(request)
        else:
            self._fail(request, f"the request was ended elsewhere ({answer})")

    def _conclude(self, request: Owned, state: RequestState, reason: str) -> None:
        """End a request from our side and say so in its record, wherever it is held."""
        self._endings.write(self._store, self._end(request, state, reason))

    def _fail(self, request: Owned, reason: str) -> None:
        """The record ended without us: end the client's stream with an error."""
        if request.phase is not Phase.ENDED:
            request.sink.on_error(Unavailable(reason, retry_after_s=RETRY_AFTER_S))
            self._end(request, RequestState.CANCELLED, reason)

    def _end(self, request: Owned, state: RequestState, reason: str) -> Ended:
        request.phase = Phase.ENDED
        request.held.clear()
        self._owned.pop(request.request_id, None)
        if not self._owned and self._is_draining:
            self._all_ended.set()
        return self._endings.note(request, state, reason)

    # -- watch -----------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Renew the lease, look after the holders of our requests, and sweep what dead processes left."""
        while True:
            await asyncio.sleep(self._timing.heartbeat_interval_s)
            if self._bus.incarnation != self._acted_incarnation:
                continue  # the frame reader freezes everything first
            try:
                lease = await self._store.heartbeat(ttl_s=self._timing.heartbeat_ttl_s, status=b"", first=False)
                if self._bus.incarnation != self._acted_incarnation:
                    continue  # it may be another server's word
                if lease == "DRAINED":
                    await self._on_drained()
                    continue
                self._workers = await list_workers(self._bus)
                await self._check_standings()
                await self._janitor.sweep_if_due()
            except BusError as e:
                log.warning("watch_unanswered", error=str(e))

    async def _check_standings(self) -> None:
        now_s = time.time()
        watched = [request for request in self._owned.values() if request.phase is Phase.OPEN]
        attempts = [request.attempt for request in watched]
        standings = await self._store.standings([request.request_id for request in watched])
        newest: str | None = None
        for request, attempt, standing in zip(watched, attempts, standings, strict=True):
            if not self._is_unmoved(request, attempt) or self._bus.incarnation != self._acted_incarnation:
                continue  # it moved while we asked, or another server answered (rule 2a)
            gap_s = 0.0 if request.gap_since_s is None else now_s - request.gap_since_s
            if standing.state in (RequestState.CANCELLED, RequestState.FAILED):
                self._fail(request, f"the request was ended elsewhere ({standing.state})")
            elif standing.state is None or gap_s > self._timing.gap_timeout_s:
                self._start_raise(request, force=True)
            elif standing.state is RequestState.FINISHED:
                newest = newest or await self._frames.last_id()
                if not self._is_unmoved(request, attempt):
                    continue
                if request.finished_by_entry is None:
                    request.finished_by_entry = newest
                elif self._frames.has_passed(request.finished_by_entry):
                    self._start_raise(request, force=True)
            elif standing.state is not RequestState.QUEUED and not standing.holder:
                self._start_raise(request)  # let go by its holder, and the frame that said so was lost (rule 10)
            elif not standing.holder_alive and self._bus.is_settled(self._timing.heartbeat_ttl_s):
                log.info("holder_gone", request_id=request.request_id, attempt=attempt, holder=standing.holder)
                self._start_raise(request)

    @staticmethod
    def _is_unmoved(request: Owned, attempt: int) -> bool:
        return request.phase is Phase.OPEN and request.attempt == attempt

    # -- what Redis may do to us -----------------------------------------------------------------------------------------

    async def _on_forgetful_redis(self) -> None:
        """Another server answers: freeze all, read anew, start everything again, end again what had ended (rule 2)."""
        incarnation = self._bus.incarnation
        unfinished = list(self._owned.values())
        log.warning("redis_changed", unfinished=len(unfinished))
        for request in unfinished:
            request.held.clear()
        self._frames.rewind()
        try:
            await self._bus.prepare()
            await self._store.heartbeat(ttl_s=self._timing.heartbeat_ttl_s, status=b"", first=True)
        except BusError as e:
            log.warning("register_unanswered", error=str(e))
            await asyncio.sleep(RESEND_PAUSE_S)
            return
        for request in unfinished:
            if request.phase is Phase.OPEN:
                self._start_raise(request, force=True, is_failure=False)
            # SUBMITTING and RAISING see the new incarnation when their script is answered
        self._endings.write_all_again(self._store)
        self._acted_incarnation = incarnation

    async def _on_drained(self) -> None:
        """The janitor took us for dead and cancelled our requests: end their streams, go on under a new id (rule 13)."""
        if not await self._bus.installation_is_known() or self._bus.incarnation != self._acted_incarnation:
            return  # it was Redis that forgot: the frame reader acts
        log.error("lease_lost", router_id=self.router_id, unfinished=len(self._owned))
        for request in list(self._owned.values()):
            self._fail(request, "this router was taken for dead and its requests were cancelled")
        self._enlist()
        await self._register()
