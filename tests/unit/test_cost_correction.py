"""The running correction of predicted times stays in bounds, follows what it sees and forgets one outlier."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brigade.core.errors import ConfigError
from brigade.policies.correction import MAX_RATIO, MIN_RATIO, Correction

times = st.integers(-5, 10**12)
observations = st.lists(st.tuples(times, times), max_size=50)
factors = st.floats(MIN_RATIO, MAX_RATIO)


def after(start: Correction, steps: list[tuple[int, int]]) -> Correction:
    """Observe decode steps (predicted, observed) one after the other."""
    for predicted_ns, observed_ns in steps:
        start = start.observe_decode(predicted_ns=predicted_ns, observed_ns=observed_ns)
    return start


@given(start=factors, steps=observations)
def test_factors_stay_in_bounds(start: float, steps: list[tuple[int, int]]) -> None:
    """No stall and no clock jump can make a worker look infinitely fast or slow; prefill is not touched by decode."""
    found = after(Correction(decode=start), steps)
    assert MIN_RATIO <= found.decode <= MAX_RATIO
    assert found.prefill == 1.0


@given(
    start=factors, predicted_ns=st.integers(1, 10**9), observed_ns=st.integers(1, 10**9), more_ns=st.integers(0, 10**9)
)
def test_a_slower_observation_never_lowers_the_factor(
    start: float, predicted_ns: int, observed_ns: int, more_ns: int
) -> None:
    """Response is monotone in what was observed."""
    slow = Correction(prefill=start).observe_prefill(predicted_ns=predicted_ns, observed_ns=observed_ns + more_ns)
    fast = Correction(prefill=start).observe_prefill(predicted_ns=predicted_ns, observed_ns=observed_ns)
    assert fast.prefill <= slow.prefill


@given(start=factors, percent=st.integers(13, 800))
def test_factors_converge_to_a_constant_ratio(start: float, percent: int) -> None:
    """A worker that always takes so many percent of its price is predicted right after a hundred steps."""
    found = after(Correction(decode=start), [(1_000_000, 10_000 * percent)] * 120)
    assert found.decode == pytest.approx(percent / 100, rel=0.001)
    assert found.decode_ns(1_000_000) == pytest.approx(10_000 * percent, rel=0.001)


def test_one_outlier_moves_the_factor_by_less_than_its_weight() -> None:
    """A stall of a hundred times the price counts as the largest ratio, once."""
    found = Correction().observe_decode(predicted_ns=1000, observed_ns=100_000)
    assert 1.0 < found.decode <= 1.0 + 0.1 * MAX_RATIO


@given(prefill=factors, decode=factors)
def test_state_survives_json(prefill: float, decode: float) -> None:
    """What a worker publishes is what a reader gets."""
    correction = Correction(prefill=prefill, decode=decode)
    assert Correction.of_state(json.loads(json.dumps(correction.state()))) == correction


@pytest.mark.parametrize(
    "state", [{}, {"prefill": 1.0}, {"prefill": 1.0, "decode": float("nan")}, {"prefill": 0, "decode": 1.0}]
)
def test_a_broken_state_is_refused(state: dict[str, object]) -> None:
    """Missing factors, NaN and zero would poison every prediction."""
    with pytest.raises(ConfigError):
        Correction.of_state(state)
