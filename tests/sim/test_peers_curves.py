"""Peer modes give every point of the peer's own attainment curves, from the same seeds."""

from __future__ import annotations

import pytest

from benchmarks.peer_curves import CURVES, Curve, our_attainment, own_points


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_every_point_equals_simdistserve(curve: Curve) -> None:
    """Two modes, two models, three data sets, loads from idle to overload: the same requests must be inside the targets."""
    for point in own_points(curve):
        ours = our_attainment(curve, per_gpu_rate=point["per_gpu_rate"], num_requests=point["N"], seed=point["seed"])
        assert ours == pytest.approx(point["both"], abs=1e-9), point
