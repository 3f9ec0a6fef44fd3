"""One worker's KV pool as its roles see it: whose blocks, lending by handle, pulling from others.

The ledger is touched from the event loop only. Bytes move on two threads: the engine's, which alone may read or write a
pool in device memory, and one for copies between processes. Two shapes of a pool:

    in host memory      the arena is the pool: lending is a line in the ledger, a pull copies straight into place
    in device memory    `StagingExporter` lends copies, a pull goes through a buffer; either waits for the engine's thread
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from brigade.core.errors import KVGone
from brigade.core.kv import KVHandle
from brigade.core.ledger import BlockLedger, Reservation
from brigade.core.messages import AttemptKey
from brigade.core.step import Engine
from brigade.kv import KVTransport, check_compatible, open_transport
from brigade.kv.arena import Arena
from brigade.kv.staging import StagingExporter


class KVPool:
    """Blocks of one engine. `on_room` is called whenever blocks came free or a loan ended."""

    def __init__(
        self,
        engine: Engine,
        *,
        arena: Arena,
        staging: StagingExporter | None = None,
        layout: str,
        engine_thread: Executor,
        copy_thread: Executor,
        open_transport: Callable[[str], KVTransport] = open_transport,
    ) -> None:
        """`arena` is the engine's own memory, or that of `staging` where the engine's is on a device."""
        self.engine = engine
        self.num_blocks = engine.num_blocks
        self.block_size_tokens = engine.block_size_tokens
        self.on_room: Callable[[], object] = lambda: None
        self.incarnation = arena.incarnation
        self._arena = arena
        self._staging = staging
        self._layout = layout
        self._engine_thread = engine_thread
        self._copy_thread = copy_thread
        raise_generation = arena.raise_generation if staging is None else None
        self.ledger = BlockLedger(engine.num_blocks, engine.block_size_tokens, raise_generation)
        self._promises: dict[AttemptKey, Reservation] = {}
        self._open_transport = open_transport
        self._transports: dict[str, KVTransport] = {}

    # -- blocks of sequences ---------------------------------------------------------------------------------------------

    def num_blocks_for(self, num_tokens: int) -> int:
        return self.ledger.num_blocks_for(num_tokens)

    def release(self, blocks: Sequence[int], promise: Reservation | None = None) -> None:
        """Give up a sequence's blocks and what it was promised."""
        self.ledger.release(blocks)
        if promise is not None:
            promise.cancel()
        self.on_room()

    # -- lending ---------------------------------------------------------------------------------------------------------

    def lend(self, key: AttemptKey, blocks: Sequence[int], promise: Reservation | None = None) -> None:
        """Hold a finished prefill's blocks for whoever decodes it; `promise` is room for the answer, used if that is here."""
        self.ledger.lend(key, blocks)
        if promise is not None:
            self._promises[key] = promise

    def has_loan(self, key: AttemptKey) -> bool:
        return key in self.ledger.loans() or (self._staging is not None and key in self._staging.ledger.loans())

    def holds(self, key: AttemptKey) -> bool:
        """Whether a loan's blocks are in this pool itself, to be taken over, and not copied out of it."""
        return key in self.ledger.loans()

    def has_promise(self, key: AttemptKey) -> bool:
        """Whether a loan comes with room for the whole answer."""
        return key in self._promises

    def loan_keys(self) -> list[AttemptKey]:
        keys = dict.fromkeys(self.ledger.loans())
        if self._staging is not None:
            keys.update(dict.fromkeys(self._staging.ledger.loans()))
        return list(keys)

    @property
    def num_lent(self) -> int:
        return self.ledger.num_lent

    async def handle(self, key: AttemptKey, *, worker_id: str, num_tokens: int, for_self: bool) -> KVHandle:
        """Name the KV of a loan. KVGone when it has ended, OutOfBlocks when there is no room to stage it now (wait for
        `on_room`). `for_self`: nobody will read by it, the loan is taken over,
        unless the blocks have been copied out already."""
        blocks: tuple[tuple[int, int], ...]
        if self._staging is None or (for_self and self.holds(key)):
            if key not in self.ledger.loans():
                raise KVGone(f"the loan of {key} has ended")
            blocks = tuple((block, self.ledger.generation(block)) for block in self.ledger.loans()[key])
        else:
            blocks = await self._staged(key, self._staging)
        return KVHandle(
            transport="shm",
            location=self._arena.location,
            incarnation=self._arena.incarnation,
            worker_id=worker_id,
            blocks=blocks,
            num_tokens=num_tokens,
            block_size_tokens=self.block_size_tokens,
            block_bytes=self.engine.block_bytes,
            dtype=self.engine.model.dtype,
            layout=self._layout,
            model_revision=self.engine.model.revision,
        )

    def drop_promise(self, key: AttemptKey) -> None:
        """The request is decoded elsewhere: the room promised for its answer is free again."""
        promise = self._promises.pop(key, None)
        if promise is not None:
            promise.cancel()
            self.on_room()

    def can_take_over(self, key: AttemptKey, num_total_blocks: int) -> bool:
        """Whether a loan that stands has room to grow to `num_total_blocks`."""
        missing = num_total_blocks - len(self.ledger.loans()[key])
        return self.has_promise(key) or self.ledger.can_allocate(missing)

    def take_over(self, key: AttemptKey, num_total_blocks: int) -> tuple[list[int], Reservation]:
        """The lender decodes the request itself: its blocks and room for the rest; ask `can_take_over` first."""
        blocks = self.ledger.take_over(key)
        return blocks, self._promises.pop(key, None) or self.ledger.reserve(num_total_blocks - len(blocks))

    def end_loan(self, key: AttemptKey) -> bool:
        """The reader has copied, or will never. False when there is no such loan."""
        self.drop_promise(key)
        ended = self.ledger.end_loan(key)
        if self._staging is not None:
            ended = self._staging.end_loan(key) or ended
        if ended:
            self.on_room()
        return ended

    def end_all_loans(self) -> None:
        for key in self.loan_keys():
            self.end_loan(key)

    # -- bytes -----------------------------------------------------------------------------------------------------------

    async def pull(self, handle: KVHandle, wanted: Sequence[tuple[int, int]]) -> None:
        """Copy blocks of another worker: for each (index into `handle.blocks`, block of this pool). KVGone when they are not
        there or not of our kind; the blocks then hold anything. A cancelled pull may still be copying: see `quiet`."""
        check_compatible(
            handle,
            block_size_tokens=self.block_size_tokens,
            block_bytes=self.engine.block_bytes,
            dtype=self.engine.model.dtype,
            layout=self._layout,
            model_revision=self.engine.model.revision,
        )
        transport = self._transports.get(handle.transport)
        if transport is None:
            transport = self._transports[handle.transport] = self._open_transport(handle.transport)
        loop = asyncio.get_running_loop()
        if self._staging is None:
            into = [(index, self._arena.block(block)) for index, block in wanted]
            await loop.run_in_executor(self._copy_thread, transport.fetch, handle, into)
            return
        buffers = [memoryview(bytearray(self.engine.block_bytes)) for _ in wanted]
        into = [(index, buffer) for (index, _), buffer in zip(wanted, buffers, strict=True)]
        await loop.run_in_executor(self._copy_thread, transport.fetch, handle, into)
        own = [block for _, block in wanted]
        await loop.run_in_executor(self._engine_thread, self._write, own, buffers)

    async def quiet(self) -> None:
        """Return when no step and no copy begun before is still running: only then may their blocks be given up."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._engine_thread, int)
        await loop.run_in_executor(self._copy_thread, int)
        await loop.run_in_executor(self._engine_thread, int)  # what a copy has left for the engine's thread

    def close(self) -> None:
        """Remove the arena; call after `quiet`."""
        for transport in self._transports.values():
            transport.close()
        self._arena.close()

    def _write(self, blocks: Iterable[int], buffers: Iterable[memoryview]) -> None:
        for block, buffer in zip(blocks, buffers, strict=True):
            self.engine.write_block(block, buffer)

    async def _staged(self, key: AttemptKey, staging: StagingExporter) -> tuple[tuple[int, int], ...]:
        """Copy a loan out of the device once; from then on only the copy is lent. KVGone, OutOfBlocks."""
        if key not in staging.ledger.loans():
            blocks = self.ledger.loans().get(key)
            if blocks is None:
                raise KVGone(f"the loan of {key} has ended")
            staged = staging.ledger.allocate(len(blocks))
            self.ledger.retain(blocks)  # the loan may end while the engine's thread copies
            try:
                copies = [(block, self._arena.block(into)) for block, into in zip(blocks, staged, strict=True)]
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._engine_thread, self._read, copies)
            except BaseException:
                staging.ledger.release(staged)
                raise
            finally:
                self.ledger.release(blocks)
            staging.ledger.lend(key, staged)
            if not self.ledger.end_loan(key):
                staging.end_loan(key)
            self.on_room()
            if key not in staging.ledger.loans():
                raise KVGone(f"the loan of {key} has ended")
        return tuple((block, staging.ledger.generation(block)) for block in staging.ledger.loans()[key])

    def _read(self, copies: Iterable[tuple[int, memoryview]]) -> None:
        for block, into in copies:
            self.engine.read_block(block, into)
