"""`brigade profile`: an engine whose times are known gets exactly those back; limits and budgets are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brigade.commands.profile import run
from brigade.core.errors import ConfigError
from brigade.core.step import ModelInfo, Sampled, Slice
from brigade.policies.cost_model import PrefillPart
from brigade.policies.profile import dump_profile, load_profile, parse_profile
from brigade.profiling.fit import fit_non_negative
from brigade.profiling.measure import Subject, measure, price_ns
from brigade.profiling.points import Limits, decode_points, mixed_points, prefill_points
from brigade.profiling.stepping import MIN_ROUNDS, Effort, slices_of, time_points

DEMO_MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"


class KnownEngine:
    """Computes nothing; its clock moves by what the model `price` asks for. Checks every slice against the pool."""

    def __init__(self, *, num_blocks: int = 4096, max_model_len_tokens: int = 2048, price: str) -> None:
        self.model = ModelInfo(
            name="known",
            path="",
            architecture="known",
            revision="known-1",
            dtype="float32",
            vocab_size=100,
            max_model_len_tokens=max_model_len_tokens,
            eos_token_ids=(),
            num_layers=1,
            num_kv_heads=1,
            head_dim=1,
        )
        self.block_size_tokens = 16
        self.block_bytes = 4096
        self.num_blocks = num_blocks
        self.now_ns = 0
        self.num_steps = 0
        self._costs = load_profile(price)

    def clock_ns(self) -> int:
        return self.now_ns

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        blocks = [block for item in slices for block in item.block_table]
        assert len(set(blocks)) == len(blocks), "sequences share blocks"
        assert max(blocks) < self.num_blocks
        decodes = [item for item in slices if len(item.token_ids) == 1]
        parts = [
            PrefillPart(num_new_tokens=len(item.token_ids), num_context_tokens=item.num_context_tokens)
            for item in slices
            if len(item.token_ids) > 1
        ]
        context = sum(item.num_context_tokens for item in decodes)
        self.now_ns += self._costs.mixed_step_ns(parts, len(decodes), context)
        self.num_steps += 1
        return [Sampled(token_id=0) for _ in slices]

    def read_block(self, block: int, into: memoryview) -> None: ...

    def write_block(self, block: int, data: memoryview) -> None: ...

    def close(self) -> None: ...


def subject(engine: KnownEngine, tmp_path: Path) -> Subject:
    return Subject(
        name="cpu/known/tp1", engine=engine, max_batch_tokens=2048, max_num_seqs=256, kv_dir=str(tmp_path), notes=()
    )


def test_a_linear_engine_is_found_again(tmp_path: Path) -> None:
    """Two regimes of decode, prefill in batches and after cached prefixes: coefficients come back, residuals vanish."""
    engine = KnownEngine(price="a100/opt-13b/tp1")
    effort = Effort(budget_s=30.0, max_rounds=3, clock_ns=engine.clock_ns)
    document = measure(subject(engine, tmp_path), effort, lambda _: None)
    text = dump_profile(document)
    profile = parse_profile(json.loads(text), where="text")
    for phase in ("prefill", "decode", "mixed"):
        assert profile.residuals[phase]["max_rel"] < 0.001, phase
    truth = load_profile("a100/opt-13b/tp1")
    for num_tokens, cached in ((100, 0), (1000, 700), (2000, 0)):
        part = PrefillPart(num_new_tokens=num_tokens, num_context_tokens=cached)
        assert profile.costs.prefill_ns([part]) == pytest.approx(truth.prefill_ns([part]), rel=0.001)
    for batch in (1, 10, 64, 200):
        found = profile.costs.decode_step_ns(batch, 300 * batch)
        assert found == pytest.approx(truth.decode_step_ns(batch, 300 * batch), rel=0.001)
    regimes = document["decode"]["regimes"]  # type: ignore[index]
    assert [regime["min_batch"] for regime in regimes] == [1, 96], (
        "the first batch measured at or above 95 begins the second"
    )


def test_an_engine_that_is_not_linear_gets_residuals(tmp_path: Path) -> None:
    """What the form cannot say shows in the residuals, and they are those of the profile that is written."""
    engine = KnownEngine(price="h100/llama-3.1-8b/tp1")
    effort = Effort(budget_s=30.0, max_rounds=3, clock_ns=engine.clock_ns)
    document = measure(subject(engine, tmp_path), effort, lambda _: None)
    profile = parse_profile(document, where="document")
    assert profile.residuals["prefill"]["max_rel"] > 0.02
    truth = load_profile("h100/llama-3.1-8b/tp1")
    limits = Limits(
        max_model_len_tokens=2048, pool_tokens=4096 * 16, block_size_tokens=16, max_batch_tokens=2048, max_num_seqs=256
    )
    worst = max(abs(price_ns(profile.costs, point) / price_ns(truth, point) - 1) for point in prefill_points(limits))
    assert worst == pytest.approx(profile.residuals["prefill"]["max_rel"], abs=1e-4)


@given(
    st.builds(
        Limits,
        max_model_len_tokens=st.integers(1, 20_000),
        pool_tokens=st.integers(16, 10**6),
        block_size_tokens=st.sampled_from((8, 16, 32)),
        max_batch_tokens=st.integers(1, 10_000),
        max_num_seqs=st.integers(1, 300),
    )
)
def test_points_keep_the_limits(limits: Limits) -> None:
    """Small pools, short models and one-sequence batches get fewer points, never ones that the engine cannot compute."""
    for point in [*prefill_points(limits), *decode_points(limits), *mixed_points(limits)]:
        assert point.num_new_tokens <= limits.max_batch_tokens
        assert point.num_sequences <= limits.max_num_seqs
        assert 0 < point.longest_tokens <= limits.max_model_len_tokens


def test_a_small_budget_leaves_the_largest_steps_out() -> None:
    """Time is bounded: what would not fit is not begun, and what is measured is measured often enough."""
    engine = KnownEngine(price="a100/opt-13b/tp1")
    limits = Limits(
        max_model_len_tokens=2048, pool_tokens=65_536, block_size_tokens=16, max_batch_tokens=2048, max_num_seqs=64
    )
    points = prefill_points(limits)
    found = time_points(engine, points, Effort(budget_s=30.0, max_rounds=5, clock_ns=engine.clock_ns))
    assert found.num_left_out == 0
    assert {timing.num_rounds for timing in found.timings} == {5}
    assert [timing.duration_ns for timing in found.timings] == [
        load_profile("a100/opt-13b/tp1").prefill_ns(timing.point.parts) for timing in found.timings
    ]


def test_no_budget_is_said_before_hours_of_measuring() -> None:
    """The first step alone is more than nothing."""
    engine = KnownEngine(price="a100/opt-13b/tp1")
    limits = Limits(
        max_model_len_tokens=2048, pool_tokens=65_536, block_size_tokens=16, max_batch_tokens=2048, max_num_seqs=64
    )
    with pytest.raises(ConfigError, match="--budget-s"):
        time_points(engine, prefill_points(limits), Effort(budget_s=0.0, max_rounds=9, clock_ns=engine.clock_ns))
    assert engine.num_steps < MIN_ROUNDS


def test_slices_of_a_point_are_its_shape() -> None:
    """Tables cover context and new tokens of each sequence, on blocks of its own."""
    engine = KnownEngine(price="a100/opt-13b/tp1")
    limits = Limits(
        max_model_len_tokens=2048, pool_tokens=65_536, block_size_tokens=16, max_batch_tokens=2048, max_num_seqs=64
    )
    for point in [*prefill_points(limits), *decode_points(limits), *mixed_points(limits)]:
        slices = slices_of(engine, point)
        assert sum(len(item.token_ids) for item in slices) == point.num_new_tokens
        assert all(
            len(item.block_table) == -(-(item.num_context_tokens + len(item.token_ids)) // 16) for item in slices
        )


@given(
    truth=st.lists(st.floats(0, 1e6), min_size=3, max_size=3).filter(lambda c: sum(c) > 1),
    rows=st.lists(st.tuples(st.just(1), st.integers(1, 5000), st.integers(1, 10**6)), min_size=6, max_size=20),
)
def test_fits_never_have_negative_coefficients(truth: list[float], rows: list[tuple[int, int, int]]) -> None:
    """A price below zero for more work would let a policy earn time."""
    durations = [max(1.0, sum(c * x for c, x in zip(truth, row, strict=True))) for row in rows]
    fit = fit_non_negative(rows, [duration * (1 + 0.1 * (index % 3)) for index, duration in enumerate(durations)])
    assert min(fit.coefficients) >= 0
    assert fit.error < len(rows)


def test_falling_times_fit_as_flat() -> None:
    """The free solution would have a negative slope; the best allowed one is a constant."""
    fit = fit_non_negative([(1, 1), (1, 2), (1, 3)], [300.0, 200.0, 100.0])
    assert fit.coefficients[1] == 0
    assert fit.coefficients[0] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "x.txt"], "--out"),
        (["--out", "/nowhere/x.json"], "--out"),
        (["--out", "x.json", "--budget-s", "soon"], "--budget-s"),
        (["--out", "x.json", "--budget-s", "nan"], "--budget-s"),
        (["--out", "x.json", "--name", "mine"], "--name"),
        (["--out", "x.json", "--clock", "cpu", "--num-threads", "2"], "--clock"),
        (["--out", "x.json", "--clock", "sun"], "--clock"),
        ([], "--out"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_loaded(flags: list[str], message: str) -> None:
    """Minutes of measuring must not end in a file that cannot be written."""
    with pytest.raises(ConfigError, match=message):
        run(["--model", str(DEMO_MODEL), *flags])


def test_the_demo_model_gets_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command on the real engine, in seconds; the file loads and prices steps."""
    out = tmp_path / "mine.json"
    flags = ["--kv-memory-mb", "16", "--max-num-seqs", "4", "--max-batch-tokens", "128", "--kv-dir", str(tmp_path)]
    assert run(["--model", str(DEMO_MODEL), "--out", str(out), "--budget-s", "8", *flags]) == 0
    costs = load_profile(out)
    assert costs.name == "cpu/demo/tp1"
    assert 0 < costs.prefill_ns([PrefillPart(num_new_tokens=64)]) < 10**10
    assert 0 < costs.decode_step_ns(4, 400) < 10**10
    assert "error of the fit" in capsys.readouterr().out
