"""What a KV transport promises, whatever carries the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from brigade.core.errors import KVGone
from brigade.core.kv import KVHandle


class KVTransport(Protocol):
    """Copies blocks that another worker has lent. Blocks its thread while it copies, so not for an event loop."""

    def fetch(self, handle: KVHandle, into: Sequence[tuple[int, memoryview]]) -> None:
        """Copy chosen blocks of a handle: for each (index into `handle.blocks`, destination of `block_bytes` bytes).

        When it returns, every destination holds exactly what was lent: the generations were found unchanged after the
        last byte was copied. KVGone otherwise, for whatever reason; the destinations then hold anything.
        """

    def prune(self) -> None:
        """Let go of what is kept for pools that have gone. Call it now and then: it may hold their memory."""

    def close(self) -> None: ...


def check_compatible(
    handle: KVHandle, *, block_size_tokens: int, block_bytes: int, dtype: str, layout: str, model_revision: str
) -> None:
    """KVGone, naming the first difference, when a handle's blocks cannot stand in the caller's pool as they are."""
    for name, theirs, ours in (
        ("model revision", handle.model_revision, model_revision),
        ("dtype", handle.dtype, dtype),
        ("layout", handle.layout, layout),
        ("block size in tokens", handle.block_size_tokens, block_size_tokens),
        ("block size in bytes", handle.block_bytes, block_bytes),
    ):
        if theirs != ours:
            raise KVGone(f"the KV of {handle.worker_id} has {name} {theirs!r}, this worker {ours!r}")
    if not 0 <= handle.num_tokens <= len(handle.blocks) * block_size_tokens:
        raise KVGone(f"a handle of {len(handle.blocks)} blocks cannot hold {handle.num_tokens} tokens")
