"""The order in which prefill workers claim: the least busy one first, and never so late that it would stand idle."""

from __future__ import annotations

from itertools import pairwise

from brigade.policies.claim_order import yield_s
from brigade.policies.cost_model import PrefillPart
from brigade.policies.profile import load_profile, profile_names


def test_an_idle_worker_does_not_wait() -> None:
    assert yield_s(0) == 0


def test_more_work_waits_longer() -> None:
    """Strictly, so that equal jobs spread over workers by what they have left."""
    waits = [yield_s(left) for left in (0, 1, 100, 500, 2048, 4096, 100_000)]
    assert all(first < second for first, second in pairwise(waits))


def test_the_wait_is_short_beside_the_work_of_every_profile() -> None:
    """It ends with the work in any case, but resolves nothing between workers that are done before their turn comes."""
    for name in profile_names():
        costs = load_profile(name)
        for left in (1, 64, 512, 2048, 4096):
            work_s = costs.prefill_ns([PrefillPart(num_new_tokens=left)]) / 1e9
            assert yield_s(left) < 2 * work_s, (name, left)
