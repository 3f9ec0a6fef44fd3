"""Sampling: filters and penalties as transformers and vLLM define them, draws that only seed and index decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_models import GREEDY, answer, load_reference, load_tiny, make_prompt
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from brigade.core.sampling import SamplingParams
from brigade.core.step import SampleRequest
from brigade.engine import sampling
from brigade.engine.engine import TorchEngine
from brigade.engine.random_models import make_random_model
from brigade.engine.sampling import sample, uniform

VOCAB_SIZE = 40


def make_logits(num_rows: int = 1, seed: int = 0, vocab_size: int = VOCAB_SIZE, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * spread


def draw(logits: torch.Tensor, params: SamplingParams, index: int = 0, **fields: Any) -> int:
    return sample(logits.clone(), [SampleRequest(params=params, index=index, **fields)])[0].token_id


def counted(logits: torch.Tensor, params: SamplingParams, num_draws: int = 4000) -> Counter[int]:
    """Draw the same row under many indices, in one call."""
    requests = [SampleRequest(params=params, index=i) for i in range(num_draws)]
    return Counter(drawn.token_id for drawn in sample(logits.repeat(num_draws, 1), requests))


def reference_probabilities(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution that transformers' own processors make, in our order."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    return processors(torch.zeros(1, 1, dtype=torch.long), logits.double())[0].softmax(-1)


FILTERS = [
    SamplingParams(),
    SamplingParams(temperature=0.5),
    SamplingParams(temperature=3.0),
    SamplingParams(top_p=0.7),
    SamplingParams(top_p=1e-6),
    SamplingParams(top_k=1),
    SamplingParams(top_k=5),
    SamplingParams(top_k=1000),
    SamplingParams(min_p=0.1),
    SamplingParams(temperature=1.5, top_k=12, top_p=0.8, min_p=0.02),
]


@pytest.mark.parametrize("params", FILTERS, ids=str)
def test_draws_follow_the_filtered_distribution(params: SamplingParams) -> None:
    """Frequencies of many draws match transformers' filtered probabilities, and nothing filtered out ever appears."""
    logits, num_draws = make_logits(seed=4), 4000
    expected = reference_probabilities(logits, params)
    seen = counted(logits, params, num_draws)
    assert {token for token in range(VOCAB_SIZE) if expected[token] == 0}.isdisjoint(seen)
    # Chi-square over tokens expected at least five times, the rest as one cell; the numbers are fixed by the seed.
    cells = [token for token in range(VOCAB_SIZE) if num_draws * expected[token] >= 5]
    pairs = [(seen[token], num_draws * float(expected[token])) for token in cells]
    rest = num_draws - sum(wanted for _, wanted in pairs)
    if rest > 1:
        pairs.append((num_draws - sum(got for got, _ in pairs), rest))
    statistic = sum((got - wanted) ** 2 / wanted for got, wanted in pairs)
    freedom = max(1, len(pairs) - 1)
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_a_nucleus_wider_than_the_first_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat distribution needs the whole vocabulary sorted; the result is the same set."""
    logits, params = make_logits(vocab_size=300, spread=0.1), SamplingParams(top_p=0.9)
    expected = reference_probabilities(logits, params)
    weights = torch.softmax(logits[0].double(), -1)
    for candidates in ((10,), (10, 290), (1000,)):
        monkeypatch.setattr(sampling, "_CANDIDATES", candidates)
        kept = sampling._nucleus(weights, params.top_p)
        assert torch.equal(kept, expected > 0)


def test_equal_logits_at_the_nucleus_border_go_to_the_lower_ids() -> None:
    """A tie at the border is cut by id, the same on every run."""
    weights = torch.full((10,), 0.1, dtype=torch.float64)
    kept = sampling._nucleus(weights, 0.35)
    assert kept.nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_temperature_zero_is_greedy_and_lowest_id_wins() -> None:
    """Exact ties of greedy go to the lowest id; top_k and top_p do not matter there."""
    logits = make_logits()
    logits[0, 7] = logits[0, 3] = 50.0
    assert draw(logits, replace(GREEDY, top_k=2, top_p=0.1)) == 3


def test_a_tiny_temperature_does_not_overflow() -> None:
    """The limit of small temperatures is greedy, not NaN."""
    logits = make_logits() * 1000
    assert draw(logits, SamplingParams(temperature=1e-7)) == int(logits.argmax())


@pytest.mark.parametrize("vocab_size", [40, 256, 1000])
def test_the_inverse_of_the_cumulative_sum(vocab_size: int) -> None:
    """The drawn id is the first whose cumulative weight exceeds the target; ids of no weight are never drawn."""
    generator = torch.Generator().manual_seed(vocab_size)
    weights = torch.rand(50, vocab_size, generator=generator) * (torch.rand(50, vocab_size, generator=generator) < 0.2)
    weights[:, 3] = 0.5
    numbers = torch.rand(50, 1, generator=generator, dtype=torch.float64)
    numbers[0], numbers[1] = 0.0, 1.0  # 1.0: where rounding up could lead
    drawn = sampling._invert(weights, numbers)
    cumulative = weights.double().cumsum(-1)
    expected = [
        min(int((row <= number * row[-1]).sum()), int((row < row[-1]).sum()))
        for row, number in zip(cumulative, numbers[:, 0], strict=True)
    ]
    assert drawn.tolist() == expected
    assert bool((weights.gather(1, drawn[:, None]) > 0).all())


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, 256, 5000])
def test_a_draw_does_not_depend_on_neighbours(vocab_size: int) -> None:
    """The same row, seed and index give the same token alone, at any row and beside any other parameters."""
    rows = make_logits(24, seed=9, vocab_size=vocab_size)
    requests = [SampleRequest(params=replace(FILTERS[i % len(FILTERS)], seed=i), index=i // 3) for i in range(24)]
    together = [drawn.token_id for drawn in sample(rows.clone(), requests)]
    alone = [sample(rows[i : i + 1].clone(), [request])[0].token_id for i, request in enumerate(requests)]
    order = list(range(24))[::-1]
    reversed_ids = [d.token_id for d in sample(rows[order].clone(), [requests[i] for i in order])]
    assert together == alone == reversed_ids[::-1]


def test_torch_generators_are_left_alone() -> None:
    """Global chance is neither read nor moved on."""
    logits, state = make_logits(), torch.random.get_rng_state()
    first = draw(logits, SamplingParams(seed=5))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(123)
    assert draw(logits, SamplingParams(seed=5)) == first


def test_the_uniform_numbers_are_fixed_for_ever() -> None:
    """A hash that changed would change every seeded answer; it also spreads over seeds and indices alike."""
    pairs = [(0, 0), (0, 1), (1, 0), (-1, 0), (2**64 - 1, 0)]
    numbers = [round(uniform(seed, index), 6) for seed, index in pairs]
    assert numbers == [0.574486, 0.848669, 0.563118, 0.882671, 0.882671]
    for numbers in ([uniform(7, i) for i in range(2000)], [uniform(i, 7) for i in range(2000)]):
        counts = Counter(int(number * 10) for number in numbers)
        assert min(counts[i] for i in range(10)) > 150
        assert all(0 <= number < 1 for number in numbers)


def test_different_seeds_and_indices_differ() -> None:
    """Neither seed nor index is ignored."""
    logits = make_logits(spread=0.5)
    assert len({draw(logits, SamplingParams(seed=seed)) for seed in range(30)}) > 5
    assert len({draw(logits, SamplingParams(seed=1), index=index) for index in range(30)}) > 5


def test_repetition_penalty_equals_transformers() -> None:
    """Prompt and output tokens alike, positive and negative logits each in their way."""
    logits, prompt, output = make_logits(seed=2), [1, 5, 5, 9], [9, 20]
    processed = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([prompt + output]), logits.clone())
    params = replace(GREEDY, repetition_penalty=1.7)
    ours = logits.clone()
    sampling._penalise(ours[0], _request(params, prompt, output))
    torch.testing.assert_close(ours, processed)


def test_presence_and_frequency_penalties_count_the_output_only() -> None:
    """As OpenAI defines them: presence once per seen token, frequency per occurrence; the prompt does not count."""
    logits, prompt, output = make_logits(seed=2), [1, 2, 3], [7, 7, 7, 8]
    ours = logits.clone()
    sampling._penalise(ours[0], _request(SamplingParams(presence_penalty=0.5, frequency_penalty=0.25), prompt, output))
    expected = logits.clone()
    expected[0, 7] -= 0.5 + 3 * 0.25
    expected[0, 8] -= 0.5 + 0.25
    torch.testing.assert_close(ours, expected)


def test_penalties_before_any_output() -> None:
    """The first token has no output to penalise."""
    logits = make_logits()
    ours = logits.clone()
    sampling._penalise(ours[0], _request(SamplingParams(presence_penalty=2.0), [], []))
    assert torch.equal(ours, logits)


def test_banned_ids_are_never_drawn() -> None:
    """Greedy and sampled alike; a ban comes before the filters, so top_k counts what is left."""
    logits = make_logits(seed=6)
    order = logits[0].argsort(descending=True).tolist()
    assert draw(logits, GREEDY, banned_token_ids=frozenset(order[:2])) == order[2]
    params = SamplingParams(top_k=2)
    drawn = {draw(logits, params, index=i, banned_token_ids={order[0]}) for i in range(200)}
    assert drawn == {order[1], order[2]}


def test_log_probabilities_are_those_of_the_unmodified_logits() -> None:
    """Temperature, penalties and bans move the draw, never the numbers reported."""
    logits = make_logits(seed=8)
    expected = logits[0].log_softmax(-1)
    params = SamplingParams(temperature=0.7, top_k=3, repetition_penalty=1.5, num_logprobs=4)
    request = _request(params, [1, 2], [int(logits.argmax())])
    (drawn,) = sample(logits.clone(), [request])
    assert drawn.logprob == pytest.approx(float(expected[drawn.token_id]))
    values, ids = expected.topk(4)
    assert [token for token, _ in drawn.top] == ids.tolist()
    assert [value for _, value in drawn.top] == pytest.approx(values.tolist())


@pytest.mark.parametrize(("num_logprobs", "num_top"), [(0, 0), (1, 1), (VOCAB_SIZE + 5, VOCAB_SIZE)])
def test_as_many_log_probabilities_as_asked(num_logprobs: int, num_top: int) -> None:
    """0 is the chosen token's only; more than the vocabulary is the vocabulary."""
    (drawn,) = sample(make_logits(), [SampleRequest(params=replace(GREEDY, num_logprobs=num_logprobs), index=0)])
    assert drawn.logprob is not None
    assert len(drawn.top) == num_top


def test_no_log_probabilities_unless_asked() -> None:
    """Nobody pays for what was not asked."""
    (drawn,) = sample(make_logits(), [SampleRequest(params=GREEDY, index=0)])
    assert drawn.logprob is None
    assert drawn.top == ()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchEngine, Any]:
    folder = make_random_model("qwen3", tmp_path_factory.mktemp("qwen3"))
    return load_tiny(folder), load_reference(folder)


def test_seeded_answers_alone_and_in_a_crowd(tiny: tuple[TorchEngine, Any]) -> None:
    """Through the whole model: the same seed draws the same answer whoever shares the steps."""
    engine, _ = tiny
    prompts = [make_prompt(length) for length in (5, 40, 17, 1)]
    params = [SamplingParams(seed=i, temperature=1.2, top_p=0.9 if i % 2 else 1.0) for i in range(4)]
    crowd = answer(engine, prompts, 12, params=params, starts=[0, 3, 1, 2], chunk_tokens=16)
    for prompt, own, branch in zip(prompts, params, crowd, strict=True):
        (alone,) = answer(engine, [prompt], 12, params=[own])
        assert branch.output == alone.output


def test_engine_log_probabilities_equal_the_reference(tiny: tuple[TorchEngine, Any]) -> None:
    """The reported numbers are log_softmax of the reference's logits at that position."""
    engine, reference = tiny
    prompt = make_prompt(20)
    (branch,) = answer(engine, [prompt], 5, params=[SamplingParams(seed=3, num_logprobs=3)])
    with torch.inference_mode():
        logprobs = reference(torch.tensor([prompt + branch.output])).logits[0].log_softmax(-1)
    for i, drawn in enumerate(branch.sampled):
        row = logprobs[len(prompt) - 1 + i]
        assert drawn.logprob == pytest.approx(float(row[drawn.token_id]), abs=1e-4)
        assert [value for _, value in drawn.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)


def test_penalised_greedy_equals_the_reference(tiny: tuple[TorchEngine, Any]) -> None:
    """A repetition penalty over prompt and output, through the engine, token for token."""
    engine, reference = tiny
    prompt = make_prompt(12)
    (branch,) = answer(engine, [prompt], 10, params=[replace(GREEDY, repetition_penalty=1.4)])
    ids = torch.tensor([prompt])
    made = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=10,
        do_sample=False,
        repetition_penalty=1.4,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert branch.output == made[0, len(prompt) :].tolist()


def _request(params: SamplingParams, prompt: Sequence[int], output: Sequence[int]) -> SampleRequest:
    return SampleRequest(params=params, index=len(output), prompt_token_ids=prompt, output_token_ids=output)
