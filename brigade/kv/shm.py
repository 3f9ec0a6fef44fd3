"""Pulls KV out of another process's arena on the same host: map its file once, then one copy per block."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

import numpy as np

from brigade.core.errors import KVGone
from brigade.core.kv import KVHandle
from brigade.kv.arena import generations_of, read_header


class SharedMemoryTransport:
    """Reads arenas by path. Works as well when the lender was killed, as long as its file is there.

    May be used by several threads at once; copies run without the interpreter lock.
    """

    def __init__(self) -> None:
        self._mapped: dict[tuple[str, str], _MappedArena] = {}

    def fetch(self, handle: KVHandle, into: Sequence[tuple[int, memoryview]]) -> None:
        """See `KVTransport.fetch`."""
        self.prune()
        arena = self._open(handle)
        wanted = [handle.blocks[index] for index, _ in into]
        if any(not 0 <= block < arena.num_blocks for block, _ in wanted):
            raise KVGone(f"a handle names blocks outside of the {arena.num_blocks} of {handle.location}")
        for (block, _), (_, destination) in zip(wanted, into, strict=True):
            arena.copy(block, destination)
        for block, generation in wanted:
            if arena.generations[block] != generation:
                raise KVGone(f"block {block} of {handle.worker_id} was re-used before or during the pull")

    def prune(self) -> None:
        """Forget mappings of files that have been removed: they would keep a whole dead pool in memory."""
        for key, arena in list(self._mapped.items()):
            if not arena.is_linked():
                self._mapped.pop(key, None)

    def close(self) -> None:
        self._mapped.clear()

    def _open(self, handle: KVHandle) -> _MappedArena:
        if handle.transport != "shm":
            raise KVGone(f"a handle for transport {handle.transport!r} cannot be read from shared memory")
        key = (handle.location, handle.incarnation)
        arena = self._mapped.get(key)
        if arena is None:
            arena = _MappedArena(handle)
            self._mapped[key] = arena
        if arena.block_bytes != handle.block_bytes:
            raise KVGone(f"blocks of {handle.location} have {arena.block_bytes} bytes, not {handle.block_bytes}")
        return arena


class _MappedArena:
    """One arena mapped read-only. Everything is let go of with the last reference to it."""

    def __init__(self, handle: KVHandle) -> None:
        self._location = handle.location
        try:
            with open(handle.location, "rb", buffering=0) as file:
                header = read_header(file.fileno())
                mapping = mmap.mmap(file.fileno(), header.file_bytes, prot=mmap.PROT_READ)
        except OSError as error:
            raise KVGone(f"the KV pool {handle.location} cannot be read: {error.strerror}") from error
        if header.incarnation != handle.incarnation:
            raise KVGone(f"{handle.location} is pool {header.incarnation}, not {handle.incarnation}")
        self.num_blocks = header.num_blocks
        self.block_bytes = header.block_bytes
        self.generations = generations_of(mapping, header)
        flat = np.frombuffer(mapping, np.uint8, count=header.num_blocks * header.block_bytes, offset=header.data_offset)
        self._blocks = flat.reshape(header.num_blocks, header.block_bytes)

    def copy(self, block: int, destination: memoryview) -> None:
        """One memcpy. ValueError when the destination has another size: that is a bug of the caller."""
        if destination.nbytes != self.block_bytes:
            raise ValueError(f"a destination of {destination.nbytes} bytes for a block of {self.block_bytes}")
        np.copyto(np.frombuffer(destination, np.uint8), self._blocks[block])

    def is_linked(self) -> bool:
        """Whether the file is still there. Its name is never used for another pool."""
        return os.path.exists(self._location)
