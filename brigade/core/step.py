"""The contract between a worker's roles and an engine: one step computes some slices of some sequences.

The engine holds weights and KV bytes and nothing about requests: which blocks belong to whom, what was accepted and
what comes next is the caller's. Prefill, chunked prefill, decode and any mix of them are the same call, so a role is
only a choice of slices.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from brigade.core.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """Ask for one token after the last token of a slice.

    `index` is the token's offset in the answer (0 = first token). `prompt_token_ids` and `output_token_ids` are read
    only when the parameters have penalties; both may be the caller's live lists, unchanged until the step returns.
    """

    params: SamplingParams
    index: int
    prompt_token_ids: Sequence[int] = ()
    output_token_ids: Sequence[int] = ()
    banned_token_ids: Collection[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Consecutive tokens of one sequence whose KV this step computes and writes.

    `token_ids` (at least one) stand at positions `num_context_tokens`, +1, …; everything before is already in the
    blocks. `block_table[i]` is the pool block of positions [i * block_size_tokens, (i + 1) * block_size_tokens) and
    covers all positions up to the last one of the slice. Two slices of one step may share blocks only below
    `num_context_tokens`, or when one slice computes the block that the other reads as context (per layer, all KV is
    written before any attention reads it).
    """

    token_ids: Sequence[int]
    num_context_tokens: int
    block_table: Sequence[int]
    sample: SampleRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One drawn token. `top` lists (id, log-probability) from the most likely down, as long as was asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the rest of the system must know of a model. `revision` names weights, config and tokenizer together."""

    name: str
    path: str
    architecture: str
    revision: str
    dtype: str
    vocab_size: int
    max_model_len_tokens: int
    eos_token_ids: tuple[int, ...]
    num_layers: int
    num_kv_heads: int
    head_dim: int


class Engine(Protocol):
    """Computes steps. Called from one thread only; every method but `step` is cheap."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def block_size_tokens(self) -> int: ...

    @property
    def block_bytes(self) -> int:
        """Bytes of one block: all layers, keys and values."""

    @property
    def num_blocks(self) -> int: ...

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        """Compute all slices together; item i answers slices[i], None where nothing was asked for."""

    def read_block(self, block: int, into: memoryview) -> None:
        """Copy one block's bytes (block_bytes) out of the pool."""

    def write_block(self, block: int, data: memoryview) -> None:
        """Copy one block's bytes (block_bytes) into the pool."""

    def close(self) -> None: ...
