"""One step's slices as arrays: packed tokens, where their KV goes, and what each sequence may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brigade.core.step import Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """T packed tokens of S sequences (slices). Host arrays are numpy, those that the device reads are tensors.

    Tokens of sequence s are rows query_starts[s] .. query_starts[s + 1]; their KV lands in block `block_of_token`
    at slot `slot_of_token`. `block_tables` is padded with 0 to the widest sequence; `kv_lengths` counts context and
    own tokens. `sampled_rows` are the last rows of the slices that ask for a token, in order.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    block_of_token: Tensor  # [T] int64
    slot_of_token: Tensor  # [T] int64
    sampled_rows: Tensor  # [number of samples] int64
    query_starts: NDArray[np.int32]  # [S + 1]
    context_lengths: NDArray[np.int32]  # [S]
    kv_lengths: NDArray[np.int32]  # [S]
    block_tables: NDArray[np.int32]  # [S, widest]
    block_size_tokens: int
    device: torch.device

    @property
    def num_tokens(self) -> int:
        return int(self.query_starts[-1])

    @property
    def num_sequences(self) -> int:
        return len(self.kv_lengths)


def pack(
    slices: Sequence[Slice], *, block_size_tokens: int, num_blocks: int, vocab_size: int, device: torch.device
) -> StepBatch:
    """Pack slices for one forward pass. A table too short or an id out of range is the caller's bug (ValueError)."""
    num_sequences = len(slices)
    query_lengths = np.fromiter((len(s.token_ids) for s in slices), np.int32, num_sequences)
    contexts = np.fromiter((s.num_context_tokens for s in slices), np.int32, num_sequences)
    starts = np.zeros(num_sequences + 1, np.int32)
    np.cumsum(query_lengths, out=starts[1:])
    num_tokens = int(starts[-1])
    kv_lengths = contexts + query_lengths
    widths = -(-kv_lengths // block_size_tokens)
    tables = np.zeros((num_sequences, int(widths.max())), np.int32)
    token_ids = np.empty(num_tokens, np.int64)
    for i, item in enumerate(slices):
        token_ids[starts[i] : starts[i + 1]] = item.token_ids
        width = int(widths[i])
        if len(item.block_table) < width:
            raise ValueError(f"slice {i} needs {width} blocks and its block table has {len(item.block_table)}")
        tables[i, :width] = item.block_table[:width]
    if int(query_lengths.min()) < 1 or int(contexts.min()) < 0:
        raise ValueError("every slice needs at least one token and a context of zero or more")
    if tables.min() < 0 or tables.max() >= num_blocks:
        raise ValueError(f"a block table names a block outside the pool of {num_blocks}")
    if token_ids.min() < 0 or token_ids.max() >= vocab_size:
        raise ValueError(f"a token id is outside the vocabulary of {vocab_size}")
    sequence_of_token = np.repeat(np.arange(num_sequences), query_lengths)
    positions = np.arange(num_tokens) + (contexts - starts[:-1])[sequence_of_token]
    blocks = tables[sequence_of_token, positions // block_size_tokens].astype(np.int64)
    sampled = np.flatnonzero(np.fromiter((s.sample is not None for s in slices), np.bool_, num_sequences))

    def tensor(array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return StepBatch(
        token_ids=tensor(token_ids),
        positions=tensor(positions),
        block_of_token=tensor(blocks),
        slot_of_token=tensor(positions % block_size_tokens),
        sampled_rows=tensor(starts[1:][sampled].astype(np.int64) - 1),
        query_starts=starts,
        context_lengths=contexts,
        kv_lengths=kv_lengths,
        block_tables=tables,
        block_size_tokens=block_size_tokens,
        device=device,
    )
