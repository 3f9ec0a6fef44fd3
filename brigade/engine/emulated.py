"""An engine without a model: answers are a hash of the KV that it wrote, so a wrong or garbled KV block changes them.

For tests of everything around the engine. It keeps the contract of `brigade.core.step.Engine` strictly: it reads a
sequence only through the block table, and writes all KV of a step before it reads any. No torch, and no timing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

from brigade.core.step import ModelInfo, Sampled, SampleRequest, Slice

_SLOT = struct.Struct("<ii")  # KV of one token: (token id, position)

EMULATED_LAYOUT = "slots of (token id, position)"


def emulated_model(
    *,
    name: str = "emulated",
    vocab_size: int = 1000,
    max_model_len_tokens: int = 1024,
    eos_token_ids: tuple[int, ...] = (),
) -> ModelInfo:
    """Describe the model that this engine pretends to be."""
    return ModelInfo(
        name=name,
        path="",
        architecture="emulated",
        revision=f"{name}-1",
        dtype="int32",
        vocab_size=vocab_size,
        max_model_len_tokens=max_model_len_tokens,
        eos_token_ids=eos_token_ids,
        num_layers=1,
        num_kv_heads=1,
        head_dim=1,
    )


def emulated_block_bytes(block_size_tokens: int) -> int:
    """Return the bytes of one block."""
    return block_size_tokens * _SLOT.size


class EmulatedEngine:
    """Implements `brigade.core.step.Engine` over `pool` (num_blocks * block_bytes, writable) or own memory."""

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size_tokens: int = 16,
        pool: memoryview | None = None,
        model: ModelInfo | None = None,
    ) -> None:
        self.model = model or emulated_model()
        self.num_blocks = num_blocks
        self.block_size_tokens = block_size_tokens
        self.block_bytes = emulated_block_bytes(block_size_tokens)
        self._pool = memoryview(bytearray(num_blocks * self.block_bytes)) if pool is None else pool
        if self._pool.nbytes != num_blocks * self.block_bytes:
            raise ValueError(f"a pool of {self._pool.nbytes} bytes for {num_blocks} blocks of {self.block_bytes}")

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        """Write the KV of all slices, then draw where a token was asked for."""
        for item in slices:
            assert item.token_ids, "a slice without tokens"
            for position, token_id in enumerate(item.token_ids, start=item.num_context_tokens):
                assert 0 <= token_id < self.model.vocab_size, f"token id {token_id}"
                _SLOT.pack_into(self._pool, self._offset(item.block_table, position), token_id, position)
        return [None if item.sample is None else self._draw(item, item.sample) for item in slices]

    def read_block(self, block: int, into: memoryview) -> None:
        into[:] = self._block(block)

    def write_block(self, block: int, data: memoryview) -> None:
        self._block(block)[:] = data

    def close(self) -> None:
        self._pool = memoryview(b"")

    def _block(self, block: int) -> memoryview:
        return self._pool[block * self.block_bytes : (block + 1) * self.block_bytes]

    def _offset(self, block_table: Sequence[int], position: int) -> int:
        block, slot = divmod(position, self.block_size_tokens)
        return block_table[block] * self.block_bytes + slot * _SLOT.size

    def _draw(self, item: Slice, sample: SampleRequest) -> Sampled:
        """Hash the whole sequence's KV with everything that sampling may depend on."""
        digest = blake2b(digest_size=8)
        left = (item.num_context_tokens + len(item.token_ids)) * _SLOT.size
        for block in item.block_table:
            if left <= 0:
                break
            digest.update(self._block(block)[:left])
            left -= self.block_bytes
        params = sample.params
        if not params.is_greedy:
            digest.update(f"{params.seed} {sample.index}".encode())
        if params.has_penalties:
            digest.update(repr((list(sample.prompt_token_ids), list(sample.output_token_ids))).encode())
        token_id = int.from_bytes(digest.digest(), "little") % self.model.vocab_size
        while token_id in sample.banned_token_ids:
            token_id = (token_id + 1) % self.model.vocab_size
        if params.num_logprobs is None:
            return Sampled(token_id=token_id)
        top = tuple(((token_id + rank) % self.model.vocab_size, -0.5 - rank) for rank in range(params.num_logprobs))
        return Sampled(token_id=token_id, logprob=-0.5, top=top)
