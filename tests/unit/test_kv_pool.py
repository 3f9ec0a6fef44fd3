"""A worker's pool: blocks lent by handle, taken over, pulled; in host memory and staged out of a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from brigade.core.errors import KVGone, OutOfBlocks
from brigade.engine.emulated import EMULATED_LAYOUT, EmulatedEngine, emulated_block_bytes
from brigade.kv.arena import Arena
from brigade.kv.pool import KVPool
from services.worker.machine import make_machine, new_threads

KEY = ("r", 1)
SIZE = 4


@contextmanager
def open_pool(folder: Path, name: str, *, staging_blocks: int = 0, layout: str = EMULATED_LAYOUT) -> Iterator[KVPool]:
    """A pool of 8 blocks, in host memory or (`staging_blocks`) as if on a device; it must balance to zero at the end."""
    arena = Arena(
        directory=str(folder),
        installation="test",
        worker_id=name,
        num_blocks=staging_blocks or 8,
        block_bytes=emulated_block_bytes(SIZE),
    )
    engine = EmulatedEngine(num_blocks=8, block_size_tokens=SIZE, pool=None if staging_blocks else arena.data)
    machine = make_machine(engine, arena=arena, is_staging=bool(staging_blocks), layout=layout, threads=new_threads())
    try:
        yield machine.pool
        machine.pool.ledger.check()
        assert machine.pool.ledger.is_idle
        assert not machine.pool.loan_keys()
    finally:
        machine.close()


def fill(pool: KVPool, num_blocks: int) -> list[int]:
    """Allocate blocks; block i of them is full of byte i + 1."""
    blocks = pool.ledger.allocate(num_blocks)
    for index, block in enumerate(blocks):
        pool.engine.write_block(block, memoryview(bytes([index + 1]) * pool.engine.block_bytes))
    return blocks


def content(pool: KVPool, block: int) -> int:
    buffer = memoryview(bytearray(pool.engine.block_bytes))
    pool.engine.read_block(block, buffer)
    assert len(set(buffer)) == 1
    return buffer[0]


@pytest.mark.parametrize("staging_blocks", [0, 4])
async def test_another_pool_pulls_what_was_lent(tmp_path: Path, staging_blocks: int) -> None:
    """Only the blocks that the reader lacks are copied, whatever memory the two pools are in."""
    with ExitStack() as stack:
        lender = stack.enter_context(open_pool(tmp_path, "lender", staging_blocks=staging_blocks))
        reader = stack.enter_context(open_pool(tmp_path, "reader", staging_blocks=4 - staging_blocks))
        lender.lend(KEY, fill(lender, 3))
        handle = await lender.handle(KEY, worker_id="lender", num_tokens=10, for_self=False)
        own = reader.ledger.allocate(2)
        await reader.pull(handle, [(1, own[0]), (2, own[1])])
        assert [content(reader, block) for block in own] == [2, 3]
        assert lender.end_loan(KEY)
        assert not lender.end_loan(KEY)
        reader.release(own)


async def test_a_pull_after_the_loan_ended_and_its_blocks_were_used_again_fails(tmp_path: Path) -> None:
    """Never another request's KV."""
    with open_pool(tmp_path, "lender") as lender, open_pool(tmp_path, "reader") as reader:
        lender.lend(KEY, fill(lender, 2))
        handle = await lender.handle(KEY, worker_id="lender", num_tokens=8, for_self=False)
        lender.end_loan(KEY)
        again = lender.ledger.allocate(8)
        own = reader.ledger.allocate(1)
        with pytest.raises(KVGone, match="re-used"):
            await reader.pull(handle, [(0, own[0])])
        reader.release(own)
        lender.release(again)


async def test_a_handle_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Bytes in another order would be garbage."""
    with open_pool(tmp_path, "lender", layout="other") as lender, open_pool(tmp_path, "reader") as reader:
        lender.lend(KEY, fill(lender, 1))
        handle = await lender.handle(KEY, worker_id="lender", num_tokens=4, for_self=False)
        own = reader.ledger.allocate(1)
        with pytest.raises(KVGone, match="layout"):
            await reader.pull(handle, [(0, own[0])])
        reader.release(own)
        lender.end_loan(KEY)


async def test_the_lender_takes_its_blocks_over_with_the_room_promised(tmp_path: Path) -> None:
    """A local job copies and releases nothing, and cannot run out of room (rule 11)."""
    with open_pool(tmp_path, "pool") as pool:
        blocks, promise = pool.ledger.admit(5)
        blocks += promise.draw(2)
        pool.lend(KEY, blocks, promise)
        others = pool.ledger.allocate(3)
        assert pool.can_take_over(KEY, 5)
        taken, rest = pool.take_over(KEY, 5)
        assert (taken, rest.num_blocks) == (blocks, 3)
        assert not pool.end_loan(KEY)
        pool.release(taken, rest)
        pool.release(others)


async def test_the_end_of_a_loan_gives_its_promise_back(tmp_path: Path) -> None:
    with open_pool(tmp_path, "pool") as pool:
        rung: list[int] = []
        pool.on_room = lambda: rung.append(pool.ledger.num_available)
        blocks, promise = pool.ledger.admit(6)
        blocks += promise.draw(2)
        pool.lend(KEY, blocks, promise)
        pool.end_loan(KEY)
        assert rung[-1] == 8


async def test_staging_frees_the_pool_and_waits_for_room(tmp_path: Path) -> None:
    """Staged blocks are lent once, the pool's own are free at once; without room there the caller is told to wait."""
    with open_pool(tmp_path, "device", staging_blocks=3) as pool:
        pool.lend(KEY, fill(pool, 2))
        pool.lend(("other", 1), fill(pool, 2))
        first = await pool.handle(KEY, worker_id="device", num_tokens=8, for_self=False)
        assert not pool.holds(KEY)
        assert pool.has_loan(KEY)
        assert await pool.handle(KEY, worker_id="device", num_tokens=8, for_self=True) == first
        with pytest.raises(OutOfBlocks):
            await pool.handle(("other", 1), worker_id="device", num_tokens=8, for_self=False)
        assert set(pool.loan_keys()) == {KEY, ("other", 1)}
        pool.end_loan(KEY)
        await pool.handle(("other", 1), worker_id="device", num_tokens=8, for_self=False)
        pool.end_all_loans()
        with pytest.raises(KVGone, match="ended"):
            await pool.handle(KEY, worker_id="device", num_tokens=8, for_self=False)
