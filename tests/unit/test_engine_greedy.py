"""Greedy answers of the engine equal transformers' generate, however the work is cut into steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import (
    GREEDY,
    answer,
    assert_same_answer,
    load_reference,
    load_tiny,
    make_prompt,
    reference_greedy,
)

from brigade.core.step import SampleRequest, Slice
from brigade.engine.engine import TorchEngine
from brigade.engine.random_models import FAMILIES, TINY, make_random_model

NUM_TOKENS = 12
LENGTHS = (1, 2, 15, 16, 17, 33, 100)


class Pair:
    """A family's engine and its oracle, whose answers are computed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine: TorchEngine = load_tiny(folder)
        self.reference: Any = load_reference(folder)
        self._answers: dict[tuple[int, ...], Any] = {}

    def expected(self, prompt: list[int], num_tokens: int = NUM_TOKENS) -> Any:
        key = (num_tokens, *prompt)
        if key not in self._answers:
            self._answers[key] = reference_greedy(self.reference, prompt, num_tokens)
        return self._answers[key]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(make_random_model(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(make_random_model("llama", tmp_path_factory.mktemp("llama")))


def test_each_prompt_length_alone(pair: Pair) -> None:
    """Around block borders and at one token, a sequence alone answers as the reference does."""
    for length in LENGTHS:
        prompt = make_prompt(length)
        (branch,) = answer(pair.engine, [prompt], NUM_TOKENS)
        assert_same_answer(branch.output, pair.expected(prompt))


def test_prompt_up_to_the_context_limit(pair: Pair) -> None:
    """The last position of the context is computed like any other."""
    limit = pair.engine.model.max_model_len_tokens
    prompt = make_prompt(limit - 4)
    (branch,) = answer(pair.engine, [prompt], 4)
    assert_same_answer(branch.output, pair.expected(prompt, 4))


def test_thirty_two_at_once_of_mixed_length(pair: Pair) -> None:
    """Neighbours in a packed step do not change an answer."""
    prompts = [make_prompt(LENGTHS[i % len(LENGTHS)], seed=i // len(LENGTHS)) for i in range(32)]
    branches = answer(pair.engine, prompts, NUM_TOKENS)
    for prompt, branch in list(zip(prompts, branches, strict=True))[::3]:
        assert_same_answer(branch.output, pair.expected(prompt))


@pytest.mark.parametrize("chunk_tokens", [1, 7, 16, 40])
def test_chunked_prefill_with_decoding_neighbours(pair: Pair, chunk_tokens: int) -> None:
    """Prompts in chunks, joining while others decode: chunk borders and mixed steps leave no trace."""
    prompts = [make_prompt(length) for length in (100, 17, 33)]
    branches = answer(pair.engine, prompts, NUM_TOKENS, chunk_tokens=chunk_tokens, starts=[0, 2, 4])
    for prompt, branch in zip(prompts, branches, strict=True):
        assert_same_answer(branch.output, pair.expected(prompt))


def test_a_prefix_computed_by_a_neighbour_in_the_same_step(pair: Pair) -> None:
    """One slice reads blocks that another slice of this step writes: all KV is written before any is read."""
    size = pair.engine.block_size_tokens
    shared, tail = make_prompt(2 * size), make_prompt(9, seed=3)
    request = SampleRequest(params=GREEDY, index=0)
    writer = Slice(token_ids=shared, num_context_tokens=0, block_table=[5, 3], sample=request)
    reader = Slice(token_ids=tail, num_context_tokens=2 * size, block_table=[5, 3, 8], sample=request)
    for slices in ([writer, reader], [reader, writer]):
        for block in (5, 3, 8):
            pair.engine.write_block(block, memoryview(bytes(pair.engine.block_bytes)))
        drawn = dict(zip(map(id, slices), pair.engine.step(slices), strict=True))
        assert_same_answer([drawn[id(writer)].token_id], pair.expected(shared, 1))
        assert_same_answer([drawn[id(reader)].token_id], pair.expected(shared + tail, 1))


def test_a_cached_prefix_serves_two_continuations(llama: Pair) -> None:
    """Blocks written in an earlier step are read by several later sequences and stay as they were."""
    size = llama.engine.block_size_tokens
    shared = make_prompt(3 * size)
    llama.engine.step([Slice(token_ids=shared, num_context_tokens=0, block_table=[0, 1, 2])])
    request = SampleRequest(params=GREEDY, index=0)
    tails = [make_prompt(n, seed=n) for n in (1, 20)]
    slices = [
        Slice(token_ids=tail, num_context_tokens=len(shared), block_table=[0, 1, 2, *own], sample=request)
        for tail, own in zip(tails, ([3], [4, 5]), strict=True)
    ]
    for tail, drawn in zip(tails, llama.engine.step(slices), strict=True):
        assert drawn is not None
        assert_same_answer([drawn.token_id], llama.expected(shared + tail, 1))


@pytest.mark.parametrize(("linear", "attention"), [("torch", "sdpa"), ("onednn", "sdpa"), ("torch", "native")])
def test_every_plug_in_gives_the_same_answers(llama: Pair, linear: str, attention: str) -> None:
    """Plug-ins differ in speed only."""
    engine = load_tiny(llama.folder, linear=linear, attention=attention)
    assert (engine.linear_name, engine.attention_name) == (linear, attention)
    prompts = [make_prompt(length) for length in (100, 1, 17, 33)]
    branches = answer(engine, prompts, NUM_TOKENS, chunk_tokens=40, starts=[0, 1, 2, 3])
    for prompt, branch in zip(prompts, branches, strict=True):
        assert_same_answer(branch.output, llama.expected(prompt))


def test_block_size_is_free(llama: Pair) -> None:
    """Any block size gives the same answers."""
    for block_size_tokens in (1, 5, 64):
        engine = load_tiny(llama.folder, block_size_tokens=block_size_tokens, num_blocks=240)
        (branch,) = answer(engine, [make_prompt(100)], NUM_TOKENS, chunk_tokens=30)
        assert_same_answer(branch.output, llama.expected(make_prompt(100)))


def test_tied_embeddings(tmp_path: Path) -> None:
    """A model whose head is its embedding."""
    pair = Pair(make_random_model("qwen3", tmp_path, size=replace(TINY, is_tied=True)))
    prompt = make_prompt(33)
    (branch,) = answer(pair.engine, [prompt], NUM_TOKENS)
    assert_same_answer(branch.output, pair.expected(prompt))


@pytest.mark.parametrize("attention", ["native", "sdpa"])
def test_sliding_window(tmp_path: Path, attention: str) -> None:
    """Mistral's window hides what lies further back, in prefill, chunks and decoding."""
    folder = make_random_model("mistral", tmp_path, config={"sliding_window": 24})
    reference, engine = load_reference(folder), load_tiny(folder, attention=attention)
    prompts = [make_prompt(length) for length in (10, 24, 25, 90)]
    for chunk_tokens in (1000, 13):
        branches = answer(engine, prompts, NUM_TOKENS, chunk_tokens=chunk_tokens)
        for prompt, branch in zip(prompts, branches, strict=True):
            assert_same_answer(branch.output, reference_greedy(reference, prompt, NUM_TOKENS))


def test_biases_of_llama(tmp_path: Path) -> None:
    """Attention and MLP biases are applied when the config says so, and needed then."""
    from safetensors.torch import load_file, save_file

    folder = make_random_model("llama", tmp_path, config={"attention_bias": True, "mlp_bias": True})
    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if "_proj.weight" in n]:
        rows = tensors[name].shape[0]
        tensors[name.replace(".weight", ".bias")] = torch.linspace(-0.3, 0.3, rows)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pair = Pair(folder)
    prompt = make_prompt(33)
    (branch,) = answer(pair.engine, [prompt], NUM_TOKENS)
    assert_same_answer(branch.output, pair.expected(prompt))


@pytest.mark.parametrize("family", ["qwen3", "olmo2"])
def test_bf16_log_probabilities_are_close_to_the_reference(tmp_path: Path, family: str) -> None:
    """In bf16 the log-probabilities of a prefill and a decode step stay near transformers' own bf16."""
    folder = make_random_model(family, tmp_path)
    reference, engine = load_reference(folder, torch.bfloat16), load_tiny(folder, dtype="bfloat16")
    prompt = make_prompt(50)
    (branch,) = answer(engine, [prompt], 2, params=[replace(GREEDY, num_logprobs=20)])
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt + branch.output])).logits[0].float().log_softmax(-1)
    for i, drawn in enumerate(branch.sampled):
        row = logits[len(prompt) - 1 + i]
        assert max(abs(float(row[token]) - logprob) for token, logprob in drawn.top) < 0.25
        assert float(row.max() - row[drawn.token_id]) < 0.25


def test_two_threads_give_the_same_answers(llama: Pair) -> None:
    """Work items are spread over threads without a race."""
    engine = load_tiny(llama.folder, num_threads=2)
    try:
        prompts = [make_prompt(length) for length in (100, 33, 17)]
        branches = answer(engine, prompts, NUM_TOKENS)
        for prompt, branch in zip(prompts, branches, strict=True):
            assert_same_answer(branch.output, llama.expected(prompt))
    finally:
        torch.set_num_threads(1)
