"""The same engine on CUDA: no line of it is for the CPU only, outside the plug-ins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_models import GREEDY, answer, assert_same_answer, load_reference, make_prompt, reference_greedy

from brigade.core.sampling import SamplingParams
from brigade.engine.load import load_engine
from brigade.engine.random_models import make_random_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("family", ["llama", "qwen3", "olmo2"])
def test_greedy_answers_on_cuda_equal_the_reference(tmp_path: Path, family: str) -> None:
    """Packed prefill, chunks, mixed steps and decoding in f32, against transformers on the CPU."""
    folder = make_random_model(family, tmp_path)
    engine, reference = load_engine(folder, dtype="float32", device="cuda", num_blocks=160), load_reference(folder)
    prompts = [make_prompt(length) for length in (1, 17, 100)]
    for prompt, branch in zip(prompts, answer(engine, prompts, 12, chunk_tokens=30, starts=[0, 1, 2]), strict=True):
        assert_same_answer(branch.output, reference_greedy(reference, prompt, 12))


def test_sampling_and_blocks_on_cuda(tmp_path: Path) -> None:
    """Filters, penalties, log-probabilities and the copies of blocks work on device memory."""
    engine = load_engine(make_random_model("llama", tmp_path), dtype="bfloat16", device="cuda", num_blocks=20)
    params = [
        SamplingParams(seed=1, top_p=0.9, top_k=20, min_p=0.01, num_logprobs=3),
        replace(GREEDY, presence_penalty=0.5, repetition_penalty=1.2),
    ]
    first, second = (answer(engine, [make_prompt(20), make_prompt(9)], 6, params=params) for _ in range(2))
    assert [branch.output for branch in first] == [branch.output for branch in second]
    kept, back = bytearray(engine.block_bytes), bytearray(engine.block_bytes)
    engine.read_block(first[0].blocks[0], memoryview(kept))
    engine.write_block(19, memoryview(bytes(kept)))
    engine.read_block(19, memoryview(back))
    assert kept == back
    assert any(kept)
