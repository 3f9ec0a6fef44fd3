"""The cost model: exact integers, runs that equal the sum of their steps, and the peers' published cross-checks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brigade.policies.cost_forms import (
    DecodeRegime,
    GridDecode,
    LinearDecode,
    PrefillCosts,
    StepCosts,
    TransferCosts,
    line,
    num_decode_steps_within,
)
from brigade.policies.cost_model import PrefillPart
from brigade.policies.piecewise import SHIFT, Curve, fixed, floor_sum, whole_ns
from brigade.policies.profile import load_profile, profile_names

TRANSFER = TransferCosts(latency_ns=50_000, bytes_per_s=25_000_000_000, bytes_per_token=819_200)

small_times = st.integers(0, 1 << (SHIFT + 24))
slopes = st.integers(0, 1 << (SHIFT + 10))


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Curves with knots at random counts; their values may fall."""
    knots = sorted(draw(st.sets(st.integers(0, 3000), min_size=1, max_size=6)))
    values = draw(st.lists(small_times, min_size=len(knots), max_size=len(knots)))
    return Curve(knots, values, draw(slopes))


@st.composite
def models(draw: st.DrawFn) -> StepCosts:
    """Cost models of both forms of decode, regimes and rows at random."""
    decode: LinearDecode | GridDecode
    if draw(st.booleans()):
        starts = [1, *sorted(draw(st.sets(st.integers(2, 40), max_size=3)))]
        decode = LinearDecode(
            [
                DecodeRegime(
                    min_batch=start,
                    base=draw(small_times),
                    per_context_token=draw(slopes),
                    per_sequence=draw(slopes),
                )
                for start in starts
            ]
        )
    else:
        rows = {}
        for batch in draw(st.sets(st.integers(1, 40), min_size=1, max_size=4)):
            knots = sorted(draw(st.sets(st.integers(0, 300), min_size=1, max_size=5)))
            rows[batch] = (knots, draw(st.lists(small_times, min_size=len(knots), max_size=len(knots))))
        decode = GridDecode(rows)
    prefill = PrefillCosts(by_tokens=draw(curves()), per_attention=draw(slopes), per_sequence=draw(slopes))
    return StepCosts(name="random", kv_capacity_tokens=1, prefill=prefill, decode=decode, transfer=TRANSFER)


@given(
    num_terms=st.integers(0, 300),
    slope=st.integers(-(1 << (SHIFT + 8)), 1 << (SHIFT + 8)),
    offset=st.integers(-(1 << (SHIFT + 8)), 1 << (SHIFT + 8)),
)
def test_floor_sum_equals_its_terms(num_terms: int, slope: int, offset: int) -> None:
    """The closed form is exact, also for falling lines."""
    assert floor_sum(num_terms, slope, offset) == sum([(slope * i + offset) >> SHIFT for i in range(num_terms)])


@given(curve=curves(), first=st.integers(0, 4000), stride=st.integers(1, 50), num_steps=st.integers(0, 200))
def test_a_sum_over_a_curve_crosses_knots_exactly(curve: Curve, first: int, stride: int, num_steps: int) -> None:
    """Sums are those of the single values, wherever the knots lie."""
    assert curve.sum_ns(first, stride, num_steps) == sum(
        [whole_ns(curve.at(first + i * stride)) for i in range(num_steps)]
    )


@given(model=models(), batch=st.integers(1, 60), context=st.integers(0, 20_000), num_steps=st.integers(0, 150))
def test_a_run_is_the_sum_of_its_steps(model: StepCosts, batch: int, context: int, num_steps: int) -> None:
    """Skipping ahead may not change a single nanosecond."""
    steps = [model.decode_step_ns(batch, context + i * batch) for i in range(num_steps)]
    assert model.decode_run_ns(batch, context, num_steps) == sum(steps)


@pytest.mark.parametrize("name", ["a100/opt-13b/tp1", "h100/llama-3.1-8b/tp1", "a100/llama-2-70b/tp2"])
@pytest.mark.parametrize("batch", [1, 2, 17, 94, 95, 130, 700])
def test_runs_of_bundled_profiles_are_exact(name: str, batch: int) -> None:
    """Linear, grid and table forms, at the border of regimes and beyond the last row."""
    model = load_profile(name)
    steps = [model.decode_step_ns(batch, 100 * batch + i * batch) for i in range(2000)]
    assert model.decode_run_ns(batch, 100 * batch, 2000) == sum(steps)
    assert all(step > 0 for step in steps)


@given(model=models(), batch=st.integers(1, 60), context=st.integers(0, 5000), max_steps=st.integers(0, 200))
def test_steps_within_a_budget_are_as_many_as_fit(model: StepCosts, batch: int, context: int, max_steps: int) -> None:
    """The inverse of a run: one step more would be too long, or is not asked for."""
    budget_ns = model.decode_run_ns(batch, context, max_steps) * 2 // 3
    found = num_decode_steps_within(
        model, batch=batch, num_context_tokens=context, max_steps=max_steps, budget_ns=budget_ns
    )
    assert model.decode_run_ns(batch, context, found) <= budget_ns
    assert found == max_steps or model.decode_run_ns(batch, context, found + 1) > budget_ns


@given(model=models(), context=st.integers(0, 3000), cuts=st.sets(st.integers(1, 499), max_size=4), total=st.just(500))
def test_chunks_of_a_prefill_do_the_attention_of_the_whole(
    model: StepCosts, context: int, cuts: set[int], total: int
) -> None:
    """Attention of chunks adds up: (c + n)^2 - c^2 telescopes. Only the curve over tokens is paid per step."""
    borders = [0, *sorted(cuts), total]
    chunks = [
        PrefillPart(num_new_tokens=end - start, num_context_tokens=context + start) for start, end in pairwise(borders)
    ]
    whole = PrefillPart(num_new_tokens=total, num_context_tokens=context)
    # One packed step over the chunks has the same tokens and the same attention; it has more parts.
    prefill = model._prefill
    extra_parts = prefill.per_sequence * (len(chunks) - 1)
    assert model._prefill_fixed(chunks) == model._prefill_fixed([whole]) + extra_parts


@given(model=models(), batch=st.integers(1, 60), context=st.integers(0, 3000), num_new=st.integers(1, 3000))
def test_a_mixed_step_costs_no_less_than_either_and_no_more_than_both(
    model: StepCosts, batch: int, context: int, num_new: int
) -> None:
    """Weights are read once; nothing comes for free."""
    part = PrefillPart(num_new_tokens=num_new)
    prefill_ns, decode_ns = model.prefill_ns([part]), model.decode_step_ns(batch, context)
    mixed_ns = model.mixed_step_ns([part], batch, context)
    assert max(prefill_ns, decode_ns) <= mixed_ns <= prefill_ns + decode_ns + 1
    assert model.mixed_step_ns([part], 0, 0) == prefill_ns
    assert model.mixed_step_ns([], batch, context) == decode_ns


def test_a_grid_gives_its_points_and_lines_between_them() -> None:
    """Rows at equal context per sequence; context is asked for in all sequences together."""
    grid = GridDecode(
        {
            2: ((100, 200), (fixed(1000), fixed(2000))),
            4: ((100, 200), (fixed(3000), fixed(5000))),
        }
    )
    model = StepCosts(
        name="grid", kv_capacity_tokens=1, prefill=PrefillCosts(by_tokens=line(0, 1)), decode=grid, transfer=TRANSFER
    )
    assert model.decode_step_ns(2, 200) == 1000
    assert model.decode_step_ns(4, 800) == 5000
    assert model.decode_step_ns(4, 600) == 4000  # half-way in context
    assert model.decode_step_ns(3, 300) == 2000  # half-way in batch
    assert model.decode_step_ns(4, 4) == 3000  # below the first context: constant
    assert model.decode_step_ns(4, 1200) == 7000  # beyond the last one: its slope
    assert model.decode_step_ns(6, 600) == 5000  # beyond the last row: the slope of the last two
    assert model.decode_step_ns(1, 100) == 1000  # below the first row: as that


def test_a_transfer_pays_latency_and_bytes_rounded_up() -> None:
    """A transfer of nothing still has the latency."""
    assert TRANSFER.duration_ns(0) == 50_000
    assert TRANSFER.duration_ns(1) == 50_000 + 32_768
    odd = TransferCosts(latency_ns=0, bytes_per_s=3_000_000_000, bytes_per_token=1)
    assert odd.duration_ns(1) == 1


CROSS_CHECK_PREFILL_MS = [
    ("a100/opt-13b/tp1", 256, 45),
    ("a100/opt-13b/tp1", 512, 72),
    ("a100/opt-13b/tp1", 1024, 129.9),
    ("a100/opt-13b/tp1", 2048, 257),
    ("a100/opt-13b-vllm/tp1", 1024, 174.4),
    ("a100/llama-2-13b/tp1", 256, 39),
    ("a100/llama-2-13b/tp1", 512, 61),
    ("a100/llama-2-13b/tp1", 1024, 107.6),
    ("a100/llama-2-13b/tp1", 2048, 211),
    ("a100/llama-3.1-70b/tp2", 1024, 308),
    ("a100/llama-2-70b/tp2", 1024, 397),  # 377 alone; the median takes in 2 x 512 tokens
]


@pytest.mark.parametrize(("name", "num_tokens", "expected_ms"), CROSS_CHECK_PREFILL_MS)
def test_prefill_cross_checks(name: str, num_tokens: int, expected_ms: float) -> None:
    """One sequence, as the sources have it, within what a digit or the fit leaves open."""
    part = PrefillPart(num_new_tokens=num_tokens)
    assert load_profile(name).prefill_ns([part]) / 1e6 == pytest.approx(expected_ms, rel=0.012)


CROSS_CHECK_DECODE_MS = [
    ("a100/opt-13b/tp1", 1, 20.3),
    ("a100/opt-13b/tp1", 16, 25.7),
    ("a100/opt-13b/tp1", 64, 42.9),
    ("a100/opt-13b/tp1", 128, 65.4),
    ("a100/opt-13b-vllm/tp1", 64, 46.8),
    ("a100/llama-2-13b/tp1", 1, 22.4),
    ("a100/llama-2-13b/tp1", 16, 25.5),
    ("a100/llama-2-13b/tp1", 64, 39.5),
    ("a100/llama-2-13b/tp1", 128, 60.2),
]


@pytest.mark.parametrize(("name", "batch", "expected_ms"), CROSS_CHECK_DECODE_MS)
def test_decode_cross_checks(name: str, batch: int, expected_ms: float) -> None:
    """Batches at 512 tokens of context each, to the printed digit."""
    assert load_profile(name).decode_step_ns(batch, 512 * batch) / 1e6 == pytest.approx(expected_ms, abs=0.051)


def test_every_bundled_profile_is_sane() -> None:
    """Times are positive, and more work takes longer over the range that people serve, but for noise of the measurements."""
    names = profile_names()
    assert len(names) >= 70
    for name in names:
        model = load_profile(name)
        prefills = [model.prefill_ns([PrefillPart(num_new_tokens=n)]) for n in (1, 128, 512, 2048, 8192, 100_000)]
        assert all(low <= high * 1.1 for low, high in pairwise(prefills)), (name, prefills)
        cached = [PrefillPart(num_new_tokens=512, num_context_tokens=c) for c in (0, 1024, 8192)]
        assert all(low <= high for low, high in pairwise([model.prefill_ns([part]) for part in cached])), name
        assert 0 < model.decode_step_ns(1, 1) <= model.decode_step_ns(256, 256 * 2048), name
        assert model.kv_capacity_tokens > 10_000, name
        assert model.kv_transfer_ns(1000) > model.kv_transfer_ns(0) > 0, name
