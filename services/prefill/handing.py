"""The end of a prefill: its first token and its KV go out in one transaction, or the request ends with that token.

Until the script has been answered the blocks stay lent and nothing steps on them: after a lost answer another worker may
be decoding already, so the same script is sent until somebody answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from brigade.bus.prefill_queue import ClaimedJob, PrefillQueue
from brigade.core.errors import KVGone, OutOfBlocks
from brigade.core.messages import AttemptKey, DecodeJob, TokensPart
from brigade.core.step import Sampled
from brigade.kv.pool import KVPool
from brigade.policies.placement import Placement
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.prefill.refusing import Refusing
from services.prefill.sequence import PrefillSequence
from services.prefill.targets import Targets


class HandOver:
    """Ends prefills, each in a task of its own. `bell` rings with every heartbeat and when loans end."""

    def __init__(
        self,
        queue: PrefillQueue,
        pool: KVPool,
        targets: Targets,
        refusing: Refusing,
        *,
        worker_id: str,
        bell: Bell,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._targets = targets
        self._refusing = refusing
        self._worker_id = worker_id
        self._bell = bell
        self._spawn = spawn
        self._open: set[AttemptKey] = set()
        self.is_leaving = False
        """The process or its role ends: what finds no target is given back at once. A worker that drains may itself have been
        the last one to decode."""

    @property
    def num_open(self) -> int:
        return len(self._open)

    def open_keys(self) -> set[AttemptKey]:
        """All attempts whose end has not been answered."""
        return set(self._open)

    def begin(self, sequence: PrefillSequence, sampled: Sampled) -> None:
        """Take over the blocks of a computed prefill and end it."""
        spec, prefix = sequence.claimed.spec, sequence.claimed.prefix
        part = TokensPart(
            request_id=sequence.key[0],
            attempt=sequence.key[1],
            offset=len(prefix),
            tokens=(sampled,),
            finish_reason=spec.stop.finish_reason(len(prefix) + 1, sampled.token_id),
            num_cached_tokens=min(sequence.num_cached_tokens, len(spec.prompt_token_ids)),
        )
        self._open.add(sequence.key)
        if part.finish_reason is not None:
            self._pool.release(sequence.blocks, sequence.promise)
            self._spawn(self._finish(sequence.claimed, part))
        else:
            self._pool.lend(sequence.key, sequence.blocks, sequence.promise)
            self._spawn(self._hand_over(sequence, part))

    async def _finish(self, claimed: ClaimedJob, part: TokensPart) -> None:
        """End a request whose first token is its last."""
        while True:
            seen = self._bell.num_rings
            answer = await until_answered(self._queue.finish, claimed, part)
            if answer != "NO_OWNER":
                return self._close(claimed, answer)
            await self._bell.wait(after=seen)  # its router is away: it comes back, or its requests are cancelled

    async def _hand_over(self, sequence: PrefillSequence, part: TokensPart) -> None:
        """Place the request until a target takes it, or its loan ends because the attempt has."""
        key, claimed = sequence.key, sequence.claimed
        answer = "ENDED"
        while self._pool.has_loan(key):
            seen = self._bell.num_rings
            target = self._targets.place(sequence.num_total_tokens)
            if target.worker_id is None and self.is_leaving:
                await until_answered(self._queue.give_back, [claimed.waiting])
                self._pool.end_loan(key)
                answer = "GIVEN_BACK"
                break
            if target.worker_id is None and self._targets.is_too_large(sequence.num_total_tokens):
                reason = f"no worker that decodes can hold {sequence.num_total_tokens} tokens"
                await self._refusing.refuse(claimed, reason)
                self._pool.end_loan(key)
                answer = "REFUSED"
                break
            job = await self._job(sequence, part, target) if target.worker_id is not None else None
            if job is None or target.worker_id is None:
                await self._bell.wait(after=seen)
                continue
            answer = await self._send(claimed, part, target.worker_id, job)
            if answer == "TARGET":
                await self._targets.note_refused(target.worker_id)
            elif answer == "NO_OWNER":
                await self._bell.wait(after=seen)
            else:
                self._settle(sequence, target.worker_id, answer)
                break
        self._close(claimed, answer)

    async def _job(self, sequence: PrefillSequence, part: TokensPart, target: Placement) -> DecodeJob | None:
        """Return the message for a target, or None when the KV cannot be shown to it now."""
        try:
            handle = await self._pool.handle(
                sequence.key,
                worker_id=self._worker_id,
                num_tokens=sequence.num_tokens,
                for_self=target.worker_id == self._worker_id,
            )
        except (KVGone, OutOfBlocks):
            return None
        return DecodeJob(
            request_id=sequence.key[0],
            attempt=sequence.key[1],
            epoch=target.epoch,
            output_token_ids=(*sequence.claimed.prefix, part.tokens[0].token_id),
            handle=handle,
        )

    async def _send(self, claimed: ClaimedJob, part: TokensPart, target: str, job: DecodeJob) -> str:
        return await until_answered(self._queue.hand_over, claimed, part, target, job)

    def _settle(self, sequence: PrefillSequence, target: str, answer: str) -> None:
        """DONE: the loan waits for its reader. ALREADY: for whichever reader the lost answer named; the heartbeat ends it."""
        key = sequence.key
        if answer == "STALE":
            self._pool.end_loan(key)
        elif answer == "DONE":
            self._targets.note_handed(target, self._pool.num_blocks_for(sequence.num_total_tokens))
            if target != self._worker_id:
                self._pool.drop_promise(key)

    def _close(self, claimed: ClaimedJob, answer: str) -> None:
        key = claimed.waiting.job.key
        self._open.discard(key)
        structlog.get_logger().debug("prefill_ended", request_id=key[0], attempt=key[1], answer=answer)
        self._bell.ring()
