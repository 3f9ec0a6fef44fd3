"""From this worker's own stream into the running batch: wait for room, bring the KV here, record the admission.

Order of arrival; nothing that needs room overtakes a job that has none. A job from elsewhere holds nothing here until it
has room for its longest answer, and then cannot run out of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream, ReceivedJob
from brigade.core.errors import BusError, KVGone
from brigade.core.messages import AttemptKey
from brigade.kv.pool import KVPool
from brigade.runtime.bell import Bell
from brigade.runtime.retry import until_answered
from services.decode.batch import DecodeBatch
from services.decode.sequence import DecodeSequence


class Intake:
    """Reads, admits and pulls. `bell` rings when room, heartbeat or records may have changed."""

    def __init__(
        self,
        bus: Bus,
        stream: DecodeStream,
        pool: KVPool,
        batch: DecodeBatch,
        *,
        worker_id: str,
        max_num_seqs: int,
        bell: Bell,
        step_bell: Bell,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._pool = pool
        self._batch = batch
        self._worker_id = worker_id
        self._max_num_seqs = max_num_seqs
        self._bell = bell
        self._step_bell = step_bell
        self._spawn = spawn
        self._revision = pool.engine.model.revision
        self._waiting: deque[DecodeSequence] = deque()
        self._arriving: list[DecodeSequence] = []  # they have their blocks; dropped ones until their copy has ended
        self._letting_go: set[str] = set()  # entries whose deletion has not been answered
        self._is_in_doubt = True
        self._is_look_due = False
        self._incarnation = bus.incarnation

    # -- what there is ---------------------------------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + len(self._arriving)

    @property
    def is_saturated(self) -> bool:
        """Whether a job waits for room or for its turn."""
        return bool(self._waiting)

    def keys(self) -> list[AttemptKey]:
        return [s.key for s in self._waiting] + [s.key for s in self._arriving if not s.is_dropped]

    def doubt(self) -> None:
        """An answer was lost: before the next job is read, look at what was delivered before (rule 4)."""
        self._is_in_doubt = True

    def look(self) -> None:
        """Now and then: a read that was given up may have been executed after the last look (rule 4)."""
        self._is_look_due = True

    def drop(self, keys: Collection[AttemptKey]) -> None:
        """Forget attempts that have ended, wherever they are here, and their entries."""
        ended = [sequence for sequence in self._waiting if sequence.key in keys]
        self._waiting = deque(sequence for sequence in self._waiting if sequence.key not in keys)
        for sequence in self._arriving:
            if sequence.key in keys and not sequence.is_dropped:
                sequence.is_dropped = True  # its copy may be running: `_bring_in` gives the blocks up
                ended.append(sequence)
        ended += self._batch.drop(keys)
        for sequence in ended:
            self._spawn(self._drop_entry(sequence.received.entry_id))
        if ended:
            self._bell.ring()

    def clear(self) -> None:
        """Give up all blocks. Only when no copy and no step is running; the tasks of arriving jobs have ended."""
        self._waiting.clear()
        for sequence in self._arriving:
            self._pool.release(sequence.blocks, sequence.promise)
        self._arriving.clear()

    # -- reading ---------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Take jobs from the stream until cancelled."""
        while True:
            seen = self._bell.num_rings
            try:
                incarnation = self._bus.incarnation
                if self._is_in_doubt or incarnation != self._incarnation or await self._has_unknown():
                    self._is_in_doubt = False
                    await self._take_up_pending()
                    self._incarnation = incarnation
                self._take_up(await self._stream.read(new=True))
            except BusError as error:
                structlog.get_logger().warning("decode_stream_not_read", error=str(error))
                self._is_in_doubt = True
                await self._bell.wait(after=seen)  # rung by the next heartbeat, answered or not

    async def _has_unknown(self) -> bool:
        """Whether a look is due and something is pending for this worker that it does not know."""
        if not self._is_look_due:
            return False
        known = self._entry_ids()
        pending = await self._stream.pending_ids()
        self._is_look_due = False
        return bool(pending - known - self._entry_ids())

    async def _take_up_pending(self) -> None:
        known = self._entry_ids()
        jobs = await self._stream.read(new=False)
        known |= self._entry_ids()  # what has ended meanwhile may still be in the answer
        self._take_up([received for received in jobs if received.entry_id not in known])

    def _entry_ids(self) -> set[str]:
        """All entries that something here will end."""
        held = {sequence.received.entry_id for sequence in (*self._waiting, *self._arriving)}
        return held | self._batch.entry_ids() | self._batch.ending_entry_ids | self._letting_go

    def _take_up(self, jobs: list[ReceivedJob]) -> None:
        for received in jobs:
            key = received.job.key
            known = self._known(key)
            if known is not None and known.received.entry_id == received.entry_id:
                continue
            if known is not None:
                self.drop([key])  # Redis forgot the first hand-over and there was a second
            size = self._pool.block_size_tokens
            self._waiting.append(DecodeSequence.of(received, block_size_tokens=size, revision=self._revision))
        if jobs:
            self.admit_waiting()

    def _known(self, key: AttemptKey) -> DecodeSequence | None:
        for sequence in (*self._waiting, *self._arriving):
            if sequence.key == key and not sequence.is_dropped:
                return sequence
        return self._batch.get(key)

    # -- admission -------------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Admit waiting jobs whenever something has changed, until cancelled."""
        while True:
            seen = self._bell.num_rings
            self.admit_waiting()
            await self._bell.wait(after=seen)

    def admit_waiting(self) -> None:
        """Give room to waiting jobs in their order, as far as it goes. Only a job that was prefilled here with room for its
        whole answer may overtake one that has none: it holds that room, so the other would wait for it for ever."""
        is_out_of_room = False
        for sequence in list(self._waiting):
            if len(self._arriving) + self._batch.num_sequences >= self._max_num_seqs:
                return
            why_never = self._why_never(sequence)
            if why_never is not None:
                self._spawn(self._let_go(sequence, why_never))
            elif is_out_of_room and not (self._is_local(sequence) and self._pool.has_promise(sequence.key)):
                continue
            elif not self._begin(sequence):
                is_out_of_room = True
                continue
            self._waiting.remove(sequence)

    def _why_never(self, sequence: DecodeSequence) -> str | None:
        spec, handle = sequence.received.spec, sequence.received.job.handle
        if self._pool.num_blocks_for(spec.num_total_tokens) > self._pool.num_blocks:
            return f"{spec.num_total_tokens} tokens do not fit into a pool of {self._pool.num_blocks} blocks"
        if handle.num_tokens != sequence.num_kv_tokens:
            return f"the handle holds {handle.num_tokens} tokens, the request has {sequence.num_kv_tokens}"
        return None

    def _is_local(self, sequence: DecodeSequence) -> bool:
        """Whether this worker prefilled it and still holds the blocks: nothing is copied then."""
        return sequence.received.job.handle.worker_id == self._worker_id and self._pool.holds(sequence.key)

    def _begin(self, sequence: DecodeSequence) -> bool:
        """Take the room and start bringing the KV here. False when there is no room now."""
        ledger, spec = self._pool.ledger, sequence.received.spec
        num_total = self._pool.num_blocks_for(spec.num_total_tokens)
        num_kv = self._pool.num_blocks_for(sequence.num_kv_tokens)
        if self._is_local(sequence):
            if not self._pool.can_take_over(sequence.key, num_total):
                return False
            sequence.blocks, sequence.promise = self._pool.take_over(sequence.key, num_total)
            wanted: list[tuple[int, int]] = []
        else:
            if not ledger.can_admit(num_total, sequence.hashes):
                return False
            cached, sequence.promise = ledger.admit(num_total, sequence.hashes)
            drawn = sequence.promise.draw(num_kv - len(cached))
            wanted = list(enumerate(drawn, start=len(cached)))
            sequence.blocks = cached + drawn
        self._arriving.append(sequence)
        self._spawn(self._bring_in(sequence, wanted))
        return True

    async def _bring_in(self, sequence: DecodeSequence, wanted: list[tuple[int, int]]) -> None:
        """Copy what is missing, record the admission, and let the request run."""
        try:
            if wanted:
                await self._pool.pull(sequence.received.job.handle, wanted)
        except KVGone as error:
            self._give_up(sequence)
            await self._let_go(sequence, str(error))
            return
        for block, block_hash in zip(sequence.blocks, sequence.hashes, strict=False):
            self._pool.ledger.register(block, block_hash)
        answer = "NO_OWNER"
        while answer == "NO_OWNER" and not sequence.is_dropped:
            seen = self._bell.num_rings
            [answer] = await until_answered(self._stream.admit, [sequence.received])
            if answer == "NO_OWNER":
                await self._bell.wait(after=seen)  # its router comes back, or its requests are cancelled
        if answer == "OK" and not sequence.is_dropped:
            self._arriving.remove(sequence)
            self._batch.add(sequence)
            if sequence.received.job.handle.worker_id == self._worker_id:
                self._pool.end_loan(sequence.key)  # copied out of the device and back: nobody else hints at its end
            self._step_bell.ring()
            return
        self._give_up(sequence)

    async def _let_go(self, sequence: DecodeSequence, reason: str) -> None:
        """Tell the owner that this attempt cannot be decoded here: it starts the next one (rule 10)."""
        received = sequence.received
        self._letting_go.add(received.entry_id)
        answer = await until_answered(self._stream.let_go, received.job, received.entry_id, reason)
        self._letting_go.discard(received.entry_id)
        request_id, attempt = sequence.key
        structlog.get_logger().warning(
            "decode_let_go", request_id=request_id, attempt=attempt, reason=reason, answer=answer
        )

    async def _drop_entry(self, entry_id: str) -> None:
        self._letting_go.add(entry_id)
        await until_answered(self._stream.drop, entry_id)
        self._letting_go.discard(entry_id)

    def _give_up(self, sequence: DecodeSequence) -> None:
        self._arriving.remove(sequence)
        self._pool.release(sequence.blocks, sequence.promise)
