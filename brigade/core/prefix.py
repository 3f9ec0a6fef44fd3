"""Chained hashes of full blocks of tokens: equal hash means equal tokens from position 0 up to the block's end.

The chain starts from the model revision and a cache salt, so KV of another model or another tenant never matches.
BLAKE2b with 16 bytes: collisions cannot be constructed, because a collision would show one request another's KV.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from hashlib import blake2b

HASH_BYTES = 16


def root_hash(revision: str, salt: bytes = b"") -> bytes:
    """The parent of a sequence's first block."""
    name = revision.encode()
    return blake2b(len(name).to_bytes(4, "little") + name + salt, digest_size=HASH_BYTES).digest()


def next_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The hash of the full block `token_ids` after the block hashed `parent`: for a block that fills while decoding."""
    return blake2b(parent + _packed(token_ids), digest_size=HASH_BYTES).digest()


def block_hashes(token_ids: Sequence[int], block_size_tokens: int, *, revision: str, salt: bytes = b"") -> list[bytes]:
    """Hashes of all full blocks of `token_ids`, in order; a rest shorter than a block has none."""
    packed = _packed(token_ids)
    stride = 4 * block_size_tokens
    parent = root_hash(revision, salt)
    hashes = []
    for end in range(stride, len(packed) + 1, stride):
        parent = blake2b(parent + packed[end - stride : end], digest_size=HASH_BYTES).digest()
        hashes.append(parent)
    return hashes


def _packed(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32, so that every machine computes the same hash."""
    packed = array("i", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
