"""Lends copies of blocks: for pools that other processes cannot map, such as one in GPU memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brigade.core.ledger import BlockLedger, LoanKey
from brigade.kv.arena import Arena


class StagingExporter:
    """A small arena beside the real pool. The pool's own blocks are free as soon as `stage` returns.

    `arena` has blocks of the same bytes as the pool and is closed with this. Loans end here, not in the pool's ledger.
    """

    def __init__(self, arena: Arena, *, block_size_tokens: int) -> None:
        self.arena = arena
        self.ledger = BlockLedger(arena.num_blocks, block_size_tokens, arena.raise_generation)

    def can_stage(self, num_blocks: int) -> bool:
        return self.ledger.can_allocate(num_blocks)

    def stage(
        self, key: LoanKey, blocks: Sequence[int], read_block: Callable[[int, memoryview], None]
    ) -> tuple[tuple[int, int], ...]:
        """Copy pool blocks out by `read_block(block, into)`; returns (block, generation) in this arena, for a handle.

        OutOfBlocks, with nothing copied, when there is no room; ask `can_stage` first.
        """
        staged = self.ledger.allocate(len(blocks))
        try:
            for block, into in zip(blocks, staged, strict=True):
                read_block(block, self.arena.block(into))
        except BaseException:
            self.ledger.release(staged)
            raise
        return self.ledger.lend(key, staged)

    def end_loan(self, key: LoanKey) -> bool:
        """The borrower has copied, or will never. False when there is no such loan."""
        return self.ledger.end_loan(key)

    def close(self) -> None:
        self.arena.close()
