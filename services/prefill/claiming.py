"""From the queue to the batch: look at the waiting jobs, let the policy choose, claim exactly those."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from brigade.bus.client import Bus
from brigade.bus.prefill_queue import ClaimedJob, PrefillQueue
from brigade.core.errors import BusError
from brigade.core.messages import AttemptKey
from brigade.kv.pool import KVPool
from brigade.policies.batching import BatchingPolicy, PrefillView, max_in_flight_blocks
from brigade.policies.claim_order import yield_s
from brigade.runtime.bell import Bell
from services.prefill.batch import PrefillBatch
from services.prefill.handing import HandOver
from services.prefill.refusing import Refusing
from services.prefill.targets import Targets

WINDOW_PER_STREAM = 32
"""Waiting jobs of each stream that the policy is shown."""


class Claiming:
    """Claims while it is open and there is room. `bell` rings when room, role or registry may have changed.

    `is_saturated` says that requests wait here to be decoded: claiming more would only take the room that they need.
    """

    def __init__(
        self,
        bus: Bus,
        queue: PrefillQueue,
        pool: KVPool,
        batch: PrefillBatch,
        handing: HandOver,
        targets: Targets,
        refusing: Refusing,
        *,
        policy: BatchingPolicy,
        max_batch_tokens: int,
        bell: Bell,
        step_bell: Bell,
        is_saturated: Callable[[], bool],
        yield_s: Callable[[int], float] = yield_s,
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._pool = pool
        self._batch = batch
        self._handing = handing
        self._targets = targets
        self._refusing = refusing
        self._policy = policy
        self._max_batch_tokens = max_batch_tokens
        self._bell = bell
        self._step_bell = step_bell
        self._is_saturated = is_saturated
        self._yield_s = yield_s
        model_blocks = pool.num_blocks_for(pool.engine.model.max_model_len_tokens)
        self._max_in_flight_blocks = max_in_flight_blocks(pool.num_blocks, min(model_blocks, pool.num_blocks))
        self._is_in_doubt = True
        self._is_claiming = False
        self._num_calls = 0  # of the watch
        self._num_answered_calls = -1  # as many as there were before the look that left nothing waiting
        self._incarnation = bus.incarnation
        self.is_open = False

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is under way whose answer may bring work."""
        return self._is_claiming

    def doubt(self) -> None:
        """An answer was lost somewhere: before the next claim, look at what the queue says is ours (rule 4)."""
        self._is_in_doubt = True
        self._bell.ring()

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            seen = self._bell.num_rings
            try:
                if self._is_in_doubt or self._incarnation != self._bus.incarnation:
                    await self._review()
                if self._may_look():
                    await self._let_others_first()
                if not self._may_look() or not await self._claim():
                    await self._bell.wait(after=seen)
            except BusError as error:
                structlog.get_logger().warning("claim_failed", error=str(error))
                self._is_in_doubt = True
                await self._bell.wait(after=seen)  # rung by the next heartbeat, answered or not

    async def watch(self) -> None:
        """Ring when something was queued, and after each block time: a job whose router came back is not queued again."""
        while True:
            seen = self._bell.num_rings
            if self.is_open:
                try:
                    await self._queue.wait_for_work()
                    self._num_calls += 1
                    self._bell.ring()
                    continue
                except BusError as error:
                    structlog.get_logger().debug("queue_not_watched", error=str(error))
            await self._bell.wait(after=seen)

    def _may_look(self) -> bool:
        """Whether something may wait that could be claimed. An empty queue is looked at when the watch calls."""
        if self._num_answered_calls == self._num_calls:
            return False
        if not self.is_open or self._batch.num_unstarted_tokens >= self._max_batch_tokens:
            return False
        if self._is_saturated():
            return False
        return self._batch.reserves_answers or self._targets.has_any()

    async def _let_others_first(self) -> None:
        """Wait as long as the policy says while this worker has prefills and others may have fewer: a job that a busy worker
        claims waits for its steps, while another could begin."""
        if self._targets.num_prefilling_workers() < 2:
            return
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while True:
            seen = self._bell.num_rings
            left_s = self._yield_s(self._batch.num_left_tokens) - (loop.time() - begun_s)
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._bell.wait(after=seen)
            except TimeoutError:
                return

    async def _claim(self) -> bool:
        """Claim once. False when nothing was to be had."""
        num_calls = self._num_calls  # before the look: what is queued after it calls again
        waiting = await self._queue.window(WINDOW_PER_STREAM)
        if not waiting:
            self._num_answered_calls = num_calls
            return False
        choice = self._policy(
            PrefillView(
                waiting=tuple(waiting),
                budget_tokens=self._max_batch_tokens - self._batch.num_unstarted_tokens,
                num_blocks=self._pool.num_blocks,
                block_size_tokens=self._pool.block_size_tokens,
                num_available_blocks=self._pool.ledger.num_available - self._batch.num_unstarted_blocks,
                num_in_flight_blocks=self._pool.num_lent
                + self._batch.num_held_blocks
                + self._batch.num_unstarted_blocks,
                max_in_flight_blocks=self._max_in_flight_blocks,
                reserves_answers=self._batch.reserves_answers,
                max_pool_tokens=self._targets.max_prefill_pool_tokens(),
            )
        )
        if not choice.chosen or not self.is_open:
            return False
        self._is_claiming = True
        try:
            known = self._known_keys()
            claimed = await self._queue.claim(choice.chosen)
            known |= self._known_keys()  # Redis may have forgotten that these were claimed before
            await self._take([job for job in claimed if job.waiting.job.key not in known])
        finally:
            self._is_claiming = False
        if len(claimed) == len(waiting) < WINDOW_PER_STREAM:  # all that waited
            self._num_answered_calls = num_calls
        structlog.get_logger().debug(
            "prefills_claimed", num_claimed=len(claimed), num_waiting=len(waiting), reason=choice.reason
        )
        return bool(claimed)

    async def _review(self) -> None:
        """Take up what the queue and the records give to this worker and it does not know."""
        incarnation = self._bus.incarnation
        if self._incarnation != incarnation:
            self._queue.forget_cursor()
        self._is_in_doubt = False
        self._num_answered_calls = -1
        self._is_claiming = True
        try:
            known = self._known_keys()
            ours = await self._queue.own_pending()
            known |= self._known_keys()  # what is handed over meanwhile may still be in the answer
            await self._take([claimed for claimed in ours if claimed.waiting.job.key not in known])
        except BusError:
            self._is_in_doubt = True
            raise
        finally:
            self._is_claiming = False
        self._incarnation = incarnation

    def _known_keys(self) -> set[AttemptKey]:
        return set(self._batch.keys()) | self._handing.open_keys()

    async def _take(self, claimed: list[ClaimedJob]) -> None:
        for job in claimed:
            # a loan left of it was handed over, which Redis forgot: it is computed again
            self._pool.end_loan(job.waiting.job.key)
            why_never = self._batch.why_never(job)
            if why_never is None:
                self._batch.add(job)
            else:
                await self._refusing.refuse(job, why_never)
        if claimed:
            self._step_bell.ring()
