"""Staging copies for pools that cannot be mapped, with a bytearray in the part of the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kv_contract import BLOCK_BYTES, block_of, content, fetch

from brigade.core.errors import KVGone, OutOfBlocks
from brigade.core.kv import KVHandle
from brigade.kv.arena import Arena
from brigade.kv.shm import SharedMemoryTransport
from brigade.kv.staging import StagingExporter


@pytest.fixture
def device_pool() -> bytearray:
    return bytearray(b"".join(content(block) for block in range(8)))


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[StagingExporter]:
    arena = Arena(directory=str(tmp_path), installation="t", worker_id="w", num_blocks=4, block_bytes=BLOCK_BYTES)
    exporter = StagingExporter(arena, block_size_tokens=16)
    yield exporter
    exporter.close()
    assert list(tmp_path.iterdir()) == []


def handle_on(exporter: StagingExporter, blocks: tuple[tuple[int, int], ...]) -> KVHandle:
    return KVHandle(
        transport="shm",
        location=exporter.arena.location,
        incarnation=exporter.arena.incarnation,
        worker_id="w",
        blocks=blocks,
        num_tokens=16 * len(blocks),
        block_size_tokens=16,
        block_bytes=BLOCK_BYTES,
        dtype="bfloat16",
        layout="plain",
        model_revision="m",
    )


def test_staged_blocks_outlive_the_pools_own(exporter: StagingExporter, device_pool: bytearray) -> None:
    """The point of staging: the device's blocks are free again at once."""

    def read_block(block: int, into: memoryview) -> None:
        into[:] = block_of(device_pool, block)

    transport = SharedMemoryTransport()
    handle = handle_on(exporter, exporter.stage(("r", 1), [6, 2, 3], read_block))
    device_pool[:] = bytes(len(device_pool))
    assert fetch(transport, handle) == content(6) + content(2) + content(3)
    assert not exporter.can_stage(2)
    with pytest.raises(OutOfBlocks):
        exporter.stage(("r2", 1), [0, 1], read_block)
    assert exporter.end_loan(("r", 1))
    assert not exporter.end_loan(("r", 1))
    assert exporter.ledger.is_idle
    exporter.stage(("r2", 1), [0, 1], read_block)
    with pytest.raises(KVGone):
        fetch(transport, handle)


def test_failed_read_leaves_nothing_staged(exporter: StagingExporter) -> None:
    """A device error in the middle of a copy must not leak staging room."""

    def read_block(block: int, into: memoryview) -> None:
        if block == 2:
            raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        exporter.stage(("r", 1), [1, 2], read_block)
    assert exporter.ledger.is_idle
    exporter.ledger.check()
