"""The name of KV that lies in some worker's pool. A handle is a lease on blocks; it carries no bytes of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KVHandle:
    """Where the KV of the first `num_tokens` tokens of a sequence lies, and what must hold for it to be readable.

    `blocks` are (block, generation) in the order of the sequence; each is `block_bytes` long and holds
    `block_size_tokens` tokens, the last one perhaps partly. A generation that has changed means that the block has
    been given to somebody else. `incarnation` names one life of one pool and is never used twice.
    """

    transport: str  # a name from the table in brigade.kv, such as "shm"
    location: str  # what that transport needs to find the pool; for shm a file path
    incarnation: str
    worker_id: str
    blocks: tuple[tuple[int, int], ...]
    num_tokens: int
    block_size_tokens: int
    block_bytes: int
    dtype: str
    layout: str  # order of the bytes inside one block, as the engine names it
    model_revision: str

    @property
    def num_bytes(self) -> int:
        """Bytes that a full pull copies: whole blocks, the unused end of the last one included."""
        return len(self.blocks) * self.block_bytes
