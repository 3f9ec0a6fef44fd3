"""An engine without a model that takes the time of a profile: tokens are a checksum of the sequence, a step is a deadline.

For whole clusters on one small host: a step costs some microseconds of CPU per sequence, whatever the length of its context,
and a block takes 8 bytes. A block holds how many of its slots are filled and the checksum of the whole sequence up to there, so
that only the last block has to be read; wrong KV in a block further back is `EmulatedEngine`'s to find. No torch.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from zlib import crc32

from brigade.core.step import ModelInfo, Sampled, SampleRequest, Slice
from brigade.engine.pace import Pace
from brigade.policies.cost_model import CostModel, PrefillPart

EMULATED_GPU_LAYOUT = "filled slots, checksum"

BLOCK = struct.Struct("<II")
_DRAW = struct.Struct("<qqI")


def step_ns(costs: CostModel, slices: Sequence[Slice], *, host_step_ns: int = 0) -> int:
    """Return what a step costs by the model: one new token after others is a decode, everything else a part of a prefill."""
    parts: list[PrefillPart] = []
    batch = num_context_tokens = 0
    for item in slices:
        num_new_tokens = len(item.token_ids)
        if num_new_tokens == 1 and item.num_context_tokens:
            batch += 1
            num_context_tokens += item.num_context_tokens
        else:
            parts.append(PrefillPart(num_new_tokens=num_new_tokens, num_context_tokens=item.num_context_tokens))
    if not parts:
        return costs.decode_step_ns(batch, num_context_tokens) + host_step_ns
    if not batch:
        return costs.prefill_ns(parts) + host_step_ns
    return costs.mixed_step_ns(parts, batch, num_context_tokens) + host_step_ns


class EmulatedGpu:
    """Implements `brigade.core.step.Engine` over `pool` (num_blocks * BLOCK.size bytes, writable).

    An answer never holds an end token, so it is as long as was asked for. `host_step_ns` is what the real host would add to
    each step. `pace` says when a step ends; tell it to rest when nothing waits.
    """

    def __init__(
        self,
        *,
        model: ModelInfo,
        costs: CostModel,
        pace: Pace,
        pool: memoryview,
        num_blocks: int,
        block_size_tokens: int = 16,
        host_step_ns: int = 0,
    ) -> None:
        if pool.nbytes != num_blocks * BLOCK.size:
            raise ValueError(f"a pool of {pool.nbytes} bytes for {num_blocks} blocks of {BLOCK.size}")
        self.model = model
        self.num_blocks = num_blocks
        self.block_size_tokens = block_size_tokens
        self.block_bytes = BLOCK.size
        self.pace = pace
        self._costs = costs
        self._host_step_ns = host_step_ns
        self._pool = pool

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        """Write the KV of all slices, draw where a token was asked for, and return when the step's time is over."""
        start_ns = self.pace.start_ns()
        sums = [0] * len(slices)
        # A slice whose context another one computes has more context, so it comes later.
        for index in sorted(range(len(slices)), key=lambda i: slices[i].num_context_tokens):
            sums[index] = self._write(slices[index])
        results = [
            None if item.sample is None else self._draw(checksum, item.sample)
            for item, checksum in zip(slices, sums, strict=True)
        ]
        self.pace.wait(start_ns, step_ns(self._costs, slices, host_step_ns=self._host_step_ns))
        return results

    def read_block(self, block: int, into: memoryview) -> None:
        into[:] = self._pool[block * BLOCK.size : (block + 1) * BLOCK.size]

    def write_block(self, block: int, data: memoryview) -> None:
        self._pool[block * BLOCK.size : (block + 1) * BLOCK.size] = data

    def close(self) -> None:
        self._pool = memoryview(b"")

    def _write(self, item: Slice) -> int:
        """Continue the sequence's checksum over the new tokens, block by block; return it."""
        assert item.token_ids, "a slice without tokens"
        size, table, pool = self.block_size_tokens, item.block_table, self._pool
        block, filled = divmod(item.num_context_tokens, size)
        checksum = 0
        if item.num_context_tokens:
            before, expected = (block, filled) if filled else (block - 1, size)
            found, checksum = BLOCK.unpack_from(pool, table[before] * BLOCK.size)
            assert found == expected, f"block {table[before]} has {found} tokens of KV, not {expected}"
        data = array("i", item.token_ids).tobytes()
        start, end = 0, len(item.token_ids)
        while start < end:
            num = min(size - filled, end - start)
            checksum = crc32(data[4 * start : 4 * (start + num)], checksum)
            BLOCK.pack_into(pool, table[block] * BLOCK.size, filled + num, checksum)
            start, block, filled = start + num, block + 1, 0
        return checksum

    def _draw(self, checksum: int, sample: SampleRequest) -> Sampled:
        """Make a token of the checksum and of everything else that sampling may depend on."""
        params = sample.params
        if not params.is_greedy:
            checksum = crc32(_DRAW.pack(params.seed & 0x7FFF_FFFF_FFFF_FFFF, sample.index, 0), checksum)
        if params.has_penalties:
            checksum = crc32(array("i", sample.prompt_token_ids).tobytes(), checksum)
            checksum = crc32(array("i", sample.output_token_ids).tobytes(), checksum)
        vocab_size = self.model.vocab_size
        token_id = checksum % vocab_size
        while token_id in self.model.eos_token_ids or token_id in sample.banned_token_ids:
            token_id = (token_id + 1) % vocab_size
        if params.num_logprobs is None:
            return Sampled(token_id=token_id)
        top = tuple(((token_id + rank) % vocab_size, -0.5 - rank) for rank in range(params.num_logprobs))
        return Sampled(token_id=token_id, logprob=-0.5, top=top)
