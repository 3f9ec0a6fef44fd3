"""Offers a workload on time. Latency counts from when a request was due, so a slow client hides nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from brigade.bench.client import CompletionClient, Reply
from brigade.bench.prompts import PromptMaker
from brigade.core.timeline import NS_PER_S, RequestTimeline
from brigade.workload import WorkloadRequest

_TICK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Bounds of a run in wall time: offering ends after `max_s`; answers have `drain_s` after the last request was offered."""

    max_s: float
    drain_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """What came of a run, in model time. `errors` counts what failed requests said, `is_cut` says that offering ended early."""

    timelines: tuple[RequestTimeline, ...]
    itl_counts_ns: Counter[int]
    errors: Counter[str]
    is_cut: bool


@dataclass(slots=True, kw_only=True)
class _Offered:
    request: WorkloadRequest
    reply: Reply


class OpenLoop:
    """Runs one workload against one server; times and gaps are stretched by `time_scale` on the wire.

    `progress` is told now and then how many were offered and how many have ended.
    """

    def __init__(
        self,
        client: CompletionClient,
        prompts: PromptMaker,
        *,
        time_scale: float,
        limits: LoadLimits,
        progress: Callable[[int, int], object] = lambda offered, ended: None,
    ) -> None:
        self._client = client
        self._prompts = prompts
        self._time_scale = time_scale
        self._limits = limits
        self._progress = progress
        self._offered: list[_Offered] = []
        self._running: set[asyncio.Task[None]] = set()
        self._start_ns = 0

    async def run(
        self, requests: Iterable[WorkloadRequest], stop: asyncio.Event, give_up: asyncio.Event
    ) -> LoadOutcome:
        """Offer all requests and wait for their ends. `stop` ends the offering, `give_up` the waiting too."""
        self._start_ns = time.monotonic_ns()
        is_cut = False
        reporting = asyncio.create_task(self._report())
        try:
            for number, request in enumerate(requests):
                # Made before it is due.
                prompt = self._prompts.prompt(number, request)
                body = self._client.body(prompt, num_tokens=request.osl, priority_class=request.priority_class)
                due_ns = self._start_ns + round(request.arrival_ns * self._time_scale)
                out_of_time = due_ns - self._start_ns > self._limits.max_s * NS_PER_S
                if out_of_time or await _until(due_ns, stop):
                    is_cut = True
                    break
                self._offer(request, body)
            await self._drain(give_up)
        finally:
            reporting.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        return self._outcome(is_cut)

    def _offer(self, request: WorkloadRequest, body: bytes) -> None:
        offered = _Offered(request=request, reply=Reply())
        self._offered.append(offered)
        task = asyncio.create_task(self._client.complete(body, offered.reply))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _drain(self, give_up: asyncio.Event) -> None:
        """Wait until all answers have ended, the time for it is over, or nobody wants to wait."""
        giving_up = asyncio.ensure_future(give_up.wait())
        try:
            async with asyncio.timeout(self._limits.drain_s):
                while self._running and not give_up.is_set():
                    await asyncio.wait((*self._running, giving_up), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # what has not ended has failed, and the report counts it
        finally:
            giving_up.cancel()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._progress(len(self._offered), len(self._offered) - len(self._running))

    def _outcome(self, is_cut: bool) -> LoadOutcome:
        gaps: Counter[int] = Counter()
        errors: Counter[str] = Counter()
        timelines = []
        for number, offered in enumerate(self._offered):
            token_ns = offered.reply.token_ns
            for before, after in pairwise(token_ns):
                gaps[round((after - before) / self._time_scale / 1000) * 1000] += 1
            timeline = self._timeline(number, offered)
            timelines.append(timeline)
            if not timeline.is_complete:
                errors[offered.reply.error or f"{len(token_ns)} tokens of {offered.request.osl}"] += 1
        return LoadOutcome(timelines=tuple(timelines), itl_counts_ns=gaps, errors=errors, is_cut=is_cut)

    def _timeline(self, number: int, offered: _Offered) -> RequestTimeline:
        request, reply = offered.request, offered.reply
        num_tokens = len(reply.token_ns)
        has_ended = reply.error is None and num_tokens == request.osl
        return RequestTimeline(
            request_id=f"r{number}",
            priority_class=request.priority_class,
            isl=request.isl,
            osl=num_tokens,
            arrival_ns=request.arrival_ns,
            first_token_ns=self._model_ns(reply.token_ns[0]) if num_tokens else None,
            last_token_ns=self._model_ns(reply.token_ns[-1]) if has_ended else None,
            num_cached_tokens=reply.num_cached_tokens,
            refused=reply.refused,
            slo=request.slo,
        )

    def _model_ns(self, wall_ns: int) -> int:
        return round((wall_ns - self._start_ns) / self._time_scale)


async def _until(due_ns: int, stop: asyncio.Event) -> bool:
    """Wait for a time of the monotonic clock. True when `stop` was set first."""
    while not stop.is_set():
        left_s = (due_ns - time.monotonic_ns()) / NS_PER_S
        if left_s <= 0:
            return False
        try:
            async with asyncio.timeout(left_s):
                await stop.wait()
        except TimeoutError:
            continue
    return True
