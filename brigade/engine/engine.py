"""The engine of a worker: one model, one pool of KV blocks, one `step`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from brigade.core.step import ModelInfo, Sampled, Slice
from brigade.engine.attention import Attention
from brigade.engine.batch import pack
from brigade.engine.lean import Model
from brigade.engine.sampling import sample


class TorchEngine:
    """Implements `brigade.core.step.Engine`. Use from one thread; `close` drops every view of the pool's memory.

    `linear_name` and `attention_name` say which plug-ins compute; `notes` are sentences for the log about anything
    slower than asked for.
    """

    def __init__(
        self,
        *,
        info: ModelInfo,
        model: Model,
        pool: Tensor,
        attention: Attention,
        linear_name: str,
        notes: tuple[str, ...],
    ) -> None:
        self.linear_name = linear_name
        self.attention_name = attention.name
        self.notes = notes
        self._info = info
        self._model: Model | None = model
        self._attention: Attention | None = attention
        self._num_blocks, self._block_size_tokens = pool.shape[0], pool.shape[4]
        self._device = pool.device
        self._bytes: Tensor | None = pool.view(self._num_blocks, -1).view(torch.uint8)
        self._block_bytes = self._bytes.shape[1]

    @property
    def model(self) -> ModelInfo:
        return self._info

    @property
    def block_size_tokens(self) -> int:
        return self._block_size_tokens

    @property
    def block_bytes(self) -> int:
        """Bytes of one block: all layers, keys and values."""
        return self._block_bytes

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    @torch.inference_mode()
    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        """Compute all slices together; item i answers slices[i], None where nothing was asked for."""
        assert self._model is not None, "step after close"
        assert self._attention is not None
        if not slices:
            return []
        batch = pack(
            slices,
            block_size_tokens=self._block_size_tokens,
            num_blocks=self._num_blocks,
            vocab_size=self._info.vocab_size,
            device=self._device,
        )
        logits = self._model.forward(batch, self._attention)
        requests = [item.sample for item in slices if item.sample is not None]
        drawn = iter(sample(logits, requests) if requests else [])
        return [None if item.sample is None else next(drawn) for item in slices]

    @torch.inference_mode()
    def read_block(self, block: int, into: memoryview) -> None:
        """Copy one block's bytes (block_bytes) out of the pool."""
        torch.frombuffer(into, dtype=torch.uint8).copy_(self._block(block, into))

    @torch.inference_mode()
    def write_block(self, block: int, data: memoryview) -> None:
        """Copy one block's bytes (block_bytes) into the pool."""
        target = self._block(block, data)
        if data.readonly:
            data = memoryview(bytearray(data))  # torch warns about memory that it could write to but must not
        target.copy_(torch.frombuffer(data, dtype=torch.uint8))

    def close(self) -> None:
        """Drop the model and every view of the pool, so that its memory can be unmapped."""
        self._model = self._attention = self._bytes = None

    def _block(self, block: int, buffer: memoryview) -> Tensor:
        assert self._bytes is not None, "block access after close"
        if not 0 <= block < self._num_blocks or buffer.nbytes != self._block_bytes:
            raise ValueError(f"block {block} of {self._num_blocks} with {buffer.nbytes} of {self._block_bytes} bytes")
        return self._bytes[block]
