"""Every scenario in `scenarios/` is valid and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brigade.sim.scenario import load_scenario
from brigade.sim.simulator import simulate

FOLDER = Path(__file__).parents[2] / "scenarios"
PATHS = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_bundled_scenario_runs(path: Path) -> None:
    """Its first requests all complete, and its flips are decided."""
    scenario = load_scenario(str(path))
    result = simulate(replace(scenario, workload=replace(scenario.workload, num_requests=2500)))
    assert 2000 < len(result.timelines) <= 2500
    assert all(timeline.is_complete for timeline in result.timelines)
    assert len(result.flips) == len(scenario.flips)
