"""What the engine tests share: random models, transformers as the oracle, and a caller that feeds an engine slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from brigade.core.sampling import SamplingParams
from brigade.core.step import Sampled, SampleRequest, Slice
from brigade.engine.engine import TorchEngine
from brigade.engine.load import load_engine

GREEDY = SamplingParams(temperature=0.0)
# Below this gap between the reference's two best logits either token is right, and what follows cannot be compared.
TIE_GAP = 1e-4


def load_reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Load the unmodified model."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def load_tiny(folder: Path, *, dtype: str = "float32", num_blocks: int = 160, **options: Any) -> TorchEngine:
    """Load an engine on one CPU thread."""
    return load_engine(folder, dtype=dtype, device="cpu", num_blocks=num_blocks, **options)


def make_prompt(num_tokens: int, seed: int = 0, vocab_size: int = 512) -> list[int]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(1000 * seed + num_tokens)
    return torch.randint(0, vocab_size, (num_tokens,), generator=generator).tolist()


@dataclass(frozen=True)
class Expected:
    """A reference answer and, per token, the gap between the two best logits."""

    token_ids: list[int]
    gaps: list[float]


@torch.inference_mode()
def reference_greedy(model: Any, prompt: Sequence[int], num_tokens: int) -> Expected:
    """Answer greedily with transformers' generate."""
    ids = torch.tensor([list(prompt)])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [logits[0].float().topk(2).values for logits in made.logits]
    return Expected(made.sequences[0, len(prompt) :].tolist(), [float(two[0] - two[1]) for two in best])


def assert_same_answer(got: Sequence[int], expected: Expected) -> None:
    """Equal token for token, up to the first tie of the reference."""
    assert len(got) == len(expected.token_ids)
    for i, (token, wanted, gap) in enumerate(zip(got, expected.token_ids, expected.gaps, strict=True)):
        if gap < TIE_GAP:
            return
        assert token == wanted, f"token {i} is {token}, the reference says {wanted} (gap {gap:.2g})"


@dataclass
class Branch:
    """One sequence being answered, as a worker sees it."""

    prompt: list[int]
    num_tokens: int
    blocks: list[int]
    params: SamplingParams = GREEDY
    num_done: int = 0
    output: list[int] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return len(self.output) >= self.num_tokens

    def next_slice(self, chunk_tokens: int) -> Slice:
        """The next chunk of the prompt, or the last drawn token."""
        known = self.prompt + self.output
        end = min(len(known), self.num_done + chunk_tokens)
        is_last = end == len(known)
        request = SampleRequest(
            params=self.params,
            index=len(self.output),
            prompt_token_ids=self.prompt,
            output_token_ids=self.output,
        )
        return Slice(
            token_ids=known[self.num_done : end],
            num_context_tokens=self.num_done,
            block_table=self.blocks,
            sample=request if is_last else None,
        )

    def accept(self, computed: Slice, drawn: Sampled | None) -> None:
        self.num_done += len(computed.token_ids)
        if drawn is not None:
            self.output.append(drawn.token_id)
            self.sampled.append(drawn)


def answer(
    engine: TorchEngine,
    prompts: Sequence[Sequence[int]],
    num_tokens: int,
    *,
    chunk_tokens: int = 10_000,
    params: Sequence[SamplingParams] | None = None,
    starts: Sequence[int] | None = None,
) -> list[Branch]:
    """Run sequences together, prompts in chunks; sequence i joins at step starts[i], so steps mix prefill and decode."""
    size = engine.block_size_tokens
    # Blocks are dealt out of order and interleaved: no sequence owns consecutive blocks.
    free = list(range(engine.num_blocks))[::-1]
    free = free[::2] + free[1::2]
    sequences = []
    for i, prompt in enumerate(prompts):
        blocks = [free.pop() for _ in range(-(-(len(prompt) + num_tokens) // size))]
        sequences.append(Branch(list(prompt), num_tokens, blocks, params[i] if params else GREEDY))
    starts = starts or [0] * len(prompts)
    step = 0
    while not all(sequence.is_finished for sequence in sequences):
        active = [s for s, start in zip(sequences, starts, strict=True) if start <= step and not s.is_finished]
        slices = [sequence.next_slice(chunk_tokens) for sequence in active]
        for sequence, computed, drawn in zip(active, slices, engine.step(slices), strict=True):
            sequence.accept(computed, drawn)
        step += 1
    return sequences
