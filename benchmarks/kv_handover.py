"""Pulling one prompt's KV out of another process's arena, against a plain memcpy of as many bytes in the same run.

    python benchmarks/kv_handover.py [--tokens 1024] [--block-bytes 196608] [--rounds 200]

The defaults are a 1,024-token prompt of a model with 12 KiB of KV per token (12.6 MB in blocks of 16 tokens). Both
copies have warm sources and destinations of the same sizes and alternate, so a busy machine slows both; the ratio is
what to compare. `first pull` includes opening and mapping the arena and touching its pages for the first time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np

from brigade.core.kv import KVHandle
from brigade.core.ledger import BlockLedger
from brigade.kv import open_transport
from brigade.kv.arena import DEFAULT_DIRECTORY, Arena

BLOCK_SIZE_TOKENS = 16


def lend(parent: Connection, directory: str, num_blocks: int, block_bytes: int) -> None:
    """The lender: fills a pool, lends every second run of blocks, holds still until told to end."""
    pool_blocks = 2 * num_blocks
    with Arena(
        directory=directory, installation="bench", worker_id="lender", num_blocks=pool_blocks, block_bytes=block_bytes
    ) as arena:
        ledger = BlockLedger(pool_blocks, BLOCK_SIZE_TOKENS, arena.raise_generation)
        ledger.allocate(num_blocks // 2)
        blocks = ledger.allocate(num_blocks)
        for block in blocks:
            arena.block(block)[:] = bytes([block % 256]) * block_bytes
        handle = KVHandle(
            transport="shm",
            location=arena.location,
            incarnation=arena.incarnation,
            worker_id="lender",
            blocks=ledger.lend(("bench", 1), blocks),
            num_tokens=num_blocks * BLOCK_SIZE_TOKENS,
            block_size_tokens=BLOCK_SIZE_TOKENS,
            block_bytes=block_bytes,
            dtype="bfloat16",
            layout="bench",
            model_revision="bench",
        )
        parent.send(handle)
        parent.poll(None)


def measure(handle: KVHandle, rounds: int) -> tuple[float, list[float], list[float]]:
    """Seconds of the first pull, of each later pull, and of each memcpy of the same number of bytes."""
    pool = memoryview(bytearray(handle.num_bytes))
    pool[:] = b"\x01" * handle.num_bytes
    size = handle.block_bytes
    into = [(i, pool[i * size : (i + 1) * size]) for i in range(len(handle.blocks))]
    source, destination = np.ones(handle.num_bytes, np.uint8), np.full(handle.num_bytes, 2, np.uint8)
    transport = open_transport("shm")
    start = time.perf_counter()
    transport.fetch(handle, into)
    first = time.perf_counter() - start
    pulls, copies = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        transport.fetch(handle, into)
        middle = time.perf_counter()
        np.copyto(destination, source)
        pulls.append(middle - start)
        copies.append(time.perf_counter() - middle)
    for i, (block, _) in enumerate(handle.blocks):
        assert pool[i * size] == block % 256 == pool[(i + 1) * size - 1]
    transport.close()
    return first, pulls, copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--block-bytes", type=int, default=196_608)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--directory", default=DEFAULT_DIRECTORY)
    options = parser.parse_args()
    num_blocks = -(-options.tokens // BLOCK_SIZE_TOKENS)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    lender = spawn.Process(target=lend, args=(theirs, options.directory, num_blocks, options.block_bytes))
    lender.start()
    theirs.close()
    try:
        handle: KVHandle = ours.recv()
        first, pulls, copies = measure(handle, options.rounds)
    finally:
        ours.close()  # the lender's wait ends either way
        lender.join()
    ratio = statistics.median(pull / copy for pull, copy in zip(pulls, copies, strict=True))
    print(
        f"{options.tokens} tokens, {len(handle.blocks)} blocks, {handle.num_bytes / 1e6:.1f} MB, {options.rounds} rounds"
    )
    print(f"first pull     {first * 1e3:8.3f} ms")
    for name, times in (("pull", pulls), ("plain memcpy", copies)):
        median, best = statistics.median(times), min(times)
        rate = handle.num_bytes / median / 1e9
        print(f"{name:14} {median * 1e3:8.3f} ms median, {best * 1e3:.3f} ms best, {rate:.1f} GB/s")
    print(f"ratio pull / memcpy: {ratio:.2f} (median of pairs)")


if __name__ == "__main__":
    main()
