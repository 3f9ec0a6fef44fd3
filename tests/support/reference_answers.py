"""Holds whole answers against transformers: every token, log-probability and end, at the worker's edge.

Teacher-forced: the reference computes its logits after each prefix of the answer, in float32, and says what the next
token may be. Tokens may differ from its choice only at a tie: see `TIE_GAP` for greedy ones; a draw may differ only when
the uniform number that decides it is within `TIE_SHARE` of a border between two tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams
from brigade.core.step import Sampled
from brigade.engine.sampling import uniform
from support.greedy import TIE_GAP, reference_model

TIE_SHARE = 1e-4
LOGPROB_TOLERANCE = 1e-3


@lru_cache(maxsize=4096)
def reference_logits(folder: Path, prompt: tuple[int, ...], output: tuple[int, ...]) -> Tensor:
    """Return the logits that decide each token of `output`: [len(output), vocab_size], float32."""
    with torch.inference_mode():
        logits: Tensor = reference_model(folder)(torch.tensor([[*prompt, *output]])).logits[0]
    return logits[len(prompt) - 1 : -1].clone()


def reference_greedy(folder: Path, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """Return transformers' own greedy continuation, which no end id stops."""
    model = reference_model(folder)
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return [int(token) for token in out[0, len(prompt) :]]


def assert_reference_answer(folder: Path, spec: RequestSpec, tokens: Sequence[Sampled], finish_reason: str) -> None:
    """Assert that an answer is one that the reference could have given, and that it ended where it had to."""
    output = [sampled.token_id for sampled in tokens]
    assert_end(spec, output, finish_reason)
    logits = reference_logits(folder, spec.prompt_token_ids, tuple(output))
    for index, sampled in enumerate(tokens):
        assert_token(logits[index], spec, output[:index], sampled.token_id)
        assert_logprobs(logits[index], spec.sampling, sampled)


def assert_end(spec: RequestSpec, output: Sequence[int], finish_reason: str) -> None:
    """Assert that the answer ends with its first end id after `min_tokens`, else with its last allowed token."""
    stop = spec.stop
    assert not stop.stop_token_ids & set(output[: stop.min_tokens]), "an end id within min_tokens"
    ends = [i for i, token in enumerate(output) if i >= stop.min_tokens and token in stop.stop_token_ids]
    if ends:
        assert (finish_reason, ends) == ("stop", [len(output) - 1]), f"{spec.request_id} went on behind an end id"
    else:
        assert (finish_reason, len(output)) == ("length", stop.max_tokens), f"{spec.request_id} ended too early"


def assert_token(logits: Tensor, spec: RequestSpec, before: Sequence[int], token: int) -> None:
    """Assert that `token` may follow `before` (the answer so far), `logits` [vocab_size] being the reference's."""
    where = f"{spec.request_id}: token {len(before)} is {token}"
    row = _adjusted(logits, spec, before)
    if spec.sampling.is_greedy:
        gap = float(row.max() - row[token])
        assert gap < TIE_GAP, f"{where}, the reference's best is {int(row.argmax())} by {gap:g}"
        return
    number = uniform(spec.sampling.seed, len(before))
    distance = min(_distance(row, params, number, token) for params in _with_neighbours(spec.sampling))
    assert distance < TIE_SHARE, f"{where}, {number:g} misses its share of the reference's probability by {distance:g}"


def assert_logprobs(logits: Tensor, params: SamplingParams, sampled: Sampled) -> None:
    """Assert that the log-probabilities are those of the model's own distribution, and that all asked for are there."""
    if params.num_logprobs is None:
        assert sampled.logprob is None
        assert not sampled.top
        return
    expected = torch.log_softmax(logits, dim=-1)
    assert sampled.logprob is not None
    assert abs(sampled.logprob - float(expected[sampled.token_id])) < LOGPROB_TOLERANCE
    best = expected.topk(params.num_logprobs).values.tolist()
    assert len({token for token, _ in sampled.top}) == len(best)
    for (token, value), of_rank in zip(sampled.top, best, strict=True):
        assert abs(value - of_rank) < LOGPROB_TOLERANCE
        assert abs(value - float(expected[token])) < LOGPROB_TOLERANCE


def assert_same_but_for_ties(folder: Path, spec: RequestSpec, one: Sequence[int], other: Sequence[int]) -> None:
    """Assert that two answers to `spec` are equal, or part at a tie of the reference."""
    for index, pair in enumerate(zip(one, other, strict=False)):
        if pair[0] != pair[1]:
            [row] = reference_logits(folder, (*spec.prompt_token_ids, *one[:index]), pair[:1])
            for token in pair:
                assert_token(row, spec, one[:index], token)
            return
    assert len(one) == len(other)


@lru_cache(maxsize=64)
def bfloat16_noise(folder: Path, prompt: tuple[int, ...], output: tuple[int, ...]) -> float:
    """Return how far transformers' own bfloat16 logits stray from its float32 ones, at the worst, along this answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *output]])).logits[0, len(prompt) - 1 : -1].float()
    return float((logits - reference_logits(folder, prompt, output)).abs().max())


def assert_greedy_in_bfloat16(folder: Path, spec: RequestSpec, tokens: Sequence[Sampled]) -> int:
    """Assert that a greedy answer with log-probabilities is the float32 reference's up to bfloat16 noise.

    The noise of one logit is measured on transformers itself. Two logits can then change places when they are closer than
    twice that, and a log-probability can be off by twice that: its logit and the normaliser. Returns how many tokens are
    exactly the reference's best.
    """
    prompt, output = spec.prompt_token_ids, tuple(sampled.token_id for sampled in tokens)
    assert_end(spec, output, "length")
    logits, tolerance = reference_logits(folder, prompt, output), 2 * bfloat16_noise(folder, prompt, output)
    logprobs = torch.log_softmax(logits, dim=-1)
    for index, sampled in enumerate(tokens):
        gap = float(logits[index].max() - logits[index][sampled.token_id])
        assert gap < tolerance, (
            f"{spec.request_id}: token {index} is {gap:g} below the best, noise allows {tolerance:g}"
        )
        assert sampled.logprob is not None
        assert abs(sampled.logprob - float(logprobs[index][sampled.token_id])) < tolerance
    return int((logits.argmax(-1) == torch.tensor(output)).sum())


def assert_same_up_to_bfloat16_noise(folder: Path, spec: RequestSpec, one: Sequence[int], other: Sequence[int]) -> None:
    """Assert that two greedy answers are equal, or part where the reference's logits are within bfloat16 noise."""
    assert len(one) == len(other)
    tolerance = 2 * bfloat16_noise(folder, spec.prompt_token_ids, tuple(one))
    for index, pair in enumerate(zip(one, other, strict=True)):
        if pair[0] != pair[1]:
            row = reference_logits(folder, spec.prompt_token_ids, tuple(one))[index]
            gap = float((row[pair[0]] - row[pair[1]]).abs())
            assert gap < tolerance, f"{spec.request_id} parts at token {index} by {gap:g}, noise allows {tolerance:g}"
            return


def _adjusted(logits: Tensor, spec: RequestSpec, before: Sequence[int]) -> Tensor:
    """Penalties as OpenAI and transformers define them, then the ids that may not be drawn yet."""
    params, row = spec.sampling, logits.clone()
    for token in {*spec.prompt_token_ids, *before}:
        row[token] = (
            row[token] * params.repetition_penalty if row[token] <= 0 else row[token] / params.repetition_penalty
        )
    for token in set(before):
        row[token] -= params.frequency_penalty * before.count(token) + params.presence_penalty
    if len(before) < spec.stop.min_tokens:
        row[sorted(spec.stop.stop_token_ids)] = -torch.inf
    return row


def _with_neighbours(params: SamplingParams) -> list[SamplingParams]:
    """The parameters, and those beside a tie at the nucleus's edge."""
    if params.top_p >= 1:
        return [params]
    return [params, *(replace(params, top_p=params.top_p + shift) for shift in (-TIE_SHARE, TIE_SHARE))]


def _distance(row: Tensor, params: SamplingParams, number: float, token: int) -> float:
    """How far `number` lies outside of the token's share of the filtered distribution's cumulative sum in id order."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    no_ids = torch.LongTensor(1, 0)
    probabilities = processors(no_ids, row[None].double())[0].softmax(-1)
    if not probabilities[token]:
        return 1.0
    above = float(probabilities[: token + 1].sum())
    return max(0.0, number - above, above - float(probabilities[token]) - number)
