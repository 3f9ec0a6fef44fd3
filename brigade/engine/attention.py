"""The attention plug-in: writes this step's keys and values into the paged pool, then attends through block tables.

The pool is one tensor [num_blocks, layers, 2 (keys, values), kv_heads, block_size_tokens, head_dim]. `SdpaAttention`
below is plain torch on any device; `native_attention` holds the CPU kernel.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from brigade.engine.batch import StepBatch


class StepAttention(Protocol):
    """Attention of all layers in one step: made once per step, called once per layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int) -> Tensor:
        """Write key and value [T, kv_heads, head_dim], then attend with query [T, heads, head_dim].

        A token sees its sequence's positions up to its own, at most the last `window` of them (0 = all). Returns
        [T, heads, head_dim]. Inputs may be strided views whose last dimension is dense.
        """


class Attention(Protocol):
    """A way to attend over one pool."""

    @property
    def name(self) -> str: ...

    def begin(self, batch: StepBatch) -> StepAttention:
        """Prepare what all layers of a step share (masks, gather indices)."""


class SdpaAttention:
    """torch's scaled_dot_product_attention: per sequence for prefill, one padded call for all decoding sequences."""

    name = "sdpa"

    def __init__(self, pool: Tensor) -> None:
        self._pool = pool

    def begin(self, batch: StepBatch) -> StepAttention:
        return _SdpaStep(self._pool, batch)


class _SdpaStep:
    def __init__(self, pool: Tensor, batch: StepBatch) -> None:
        self._pool = pool
        self._batch = batch
        starts, contexts = batch.query_starts, batch.context_lengths
        decoding = [s for s in range(batch.num_sequences) if contexts[s] and starts[s + 1] - starts[s] == 1]
        self._prefills = sorted(set(range(batch.num_sequences)) - set(decoding))
        self._decode_rows = torch.tensor([int(starts[s]) for s in decoding], device=batch.device)
        self._tables = torch.from_numpy(batch.block_tables).to(batch.device)
        width = int(-(-batch.kv_lengths[decoding].max() // batch.block_size_tokens)) if decoding else 0
        self._decode_blocks = self._tables[decoding, :width].long()
        self._decode_lengths = torch.from_numpy(batch.kv_lengths[decoding]).to(batch.device)
        self._masks: dict[tuple[int, int], Tensor] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int) -> Tensor:
        batch = self._batch
        keys, values = self._pool[:, layer, 0], self._pool[:, layer, 1]
        keys[batch.block_of_token, :, batch.slot_of_token] = key
        values[batch.block_of_token, :, batch.slot_of_token] = value
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        for s in self._prefills:
            rows = slice(int(batch.query_starts[s]), int(batch.query_starts[s + 1]))
            kv_length, context = int(batch.kv_lengths[s]), int(batch.context_lengths[s])
            if context:
                table = self._tables[s, : -(-kv_length // batch.block_size_tokens)].long()
                read_key, read_value = _gather(keys, table)[:kv_length], _gather(values, table)[:kv_length]
            else:
                read_key, read_value = key[rows], value[rows]
            is_plain = not context and (not window or kv_length <= window)
            mask = None if is_plain else self._prefill_mask(s, context, kv_length, window)
            out[rows] = _attend(query[rows], read_key, read_value, mask, scale=scale)
        if len(self._decode_rows):
            out[self._decode_rows] = self._decode(query[self._decode_rows], keys, values, scale=scale, window=window)
        return out

    def _decode(self, query: Tensor, keys: Tensor, values: Tensor, *, scale: float, window: int) -> Tensor:
        num_sequences, num_heads, head_dim = query.shape
        # [S, width, kv_heads, block, dim] -> [S, kv_heads, 1, width * block, dim]
        read_key = keys[self._decode_blocks].transpose(1, 2).flatten(2, 3).unsqueeze(2)
        read_value = values[self._decode_blocks].transpose(1, 2).flatten(2, 3).unsqueeze(2)
        grouped = query.view(num_sequences, read_key.shape[1], -1, 1, head_dim)
        shape = (*grouped.shape[:3], *read_key.shape[-2:])
        mask = self._decode_mask(read_key.shape[3], window)[:, None, None, None]
        out = F.scaled_dot_product_attention(
            grouped.flatten(0, 1),
            read_key.expand(shape).flatten(0, 1),
            read_value.expand(shape).flatten(0, 1),
            attn_mask=mask.expand(-1, read_key.shape[1], -1, -1, -1).flatten(0, 1),
            scale=scale,
        )
        return out.reshape(num_sequences, num_heads, head_dim)

    def _decode_mask(self, width_tokens: int, window: int) -> Tensor:
        """Which positions each decoding sequence sees: [S, width_tokens] bool."""
        mask = self._masks.get((-1, window))
        if mask is None:
            positions = torch.arange(width_tokens, device=self._batch.device)
            lengths = self._decode_lengths[:, None]
            mask = positions < lengths
            if window:
                mask &= positions >= lengths - window
            self._masks[-1, window] = mask
        return mask

    def _prefill_mask(self, s: int, context: int, kv_length: int, window: int) -> Tensor:
        """Which positions each query of a sequence sees: [queries, kv_length] bool."""
        mask = self._masks.get((s, window))
        if mask is None:
            own = torch.arange(context, kv_length, device=self._batch.device)[:, None]
            positions = torch.arange(kv_length, device=self._batch.device)
            mask = positions <= own
            if window:
                mask &= positions > own - window
            self._masks[s, window] = mask
        return mask


def _gather(cache: Tensor, table: Tensor) -> Tensor:
    """Read blocks [n] of one layer's keys or values as [n * block_size, kv_heads, head_dim]."""
    return cache[table].transpose(1, 2).flatten(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Attend [L, heads, dim] over [M, kv_heads, dim]; query heads of a group share keys by a view, not a copy."""
    length, num_heads, head_dim = query.shape
    num_kv_heads = key.shape[1]
    grouped = query.reshape(length, num_kv_heads, -1, head_dim).permute(1, 2, 0, 3)
    shape = (num_kv_heads, num_heads // num_kv_heads, key.shape[0], head_dim)
    out = F.scaled_dot_product_attention(
        grouped,
        key.transpose(0, 1).unsqueeze(1).expand(shape),
        value.transpose(0, 1).unsqueeze(1).expand(shape),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
    )
    return out.permute(2, 0, 1, 3).reshape(length, num_heads, head_dim)
