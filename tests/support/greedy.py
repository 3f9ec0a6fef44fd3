"""The oracle of right answers: transformers' own forward, unmodified."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

TIE_GAP = 1e-4
"""In float32, logits depend a little on batch shape: where the reference's best two are closer, either token counts."""


@lru_cache(maxsize=8)
def reference_model(folder: Path) -> Any:
    """Return transformers' own model of a folder, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def assert_greedy(
    folder: Path, prompt: Sequence[int], output: Sequence[int], *, num_expected: int | None = None
) -> None:
    """Assert that every token of `output` is the reference's best after what stands before it, but for ties."""
    assert num_expected is None or len(output) == num_expected, f"{len(output)} tokens, expected {num_expected}"
    with torch.inference_mode():
        logits = reference_model(folder)(torch.tensor([[*prompt, *output]])).logits[0].float()
    for index, token in enumerate(output):
        row = logits[len(prompt) + index - 1]
        gap = float(row.max() - row[token])
        assert gap < TIE_GAP, f"token {index} is {token}, the reference's best is {int(row.argmax())} by {gap:g}"
