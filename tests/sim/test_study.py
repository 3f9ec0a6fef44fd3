"""Sweeps, searches and plans over the simulator, and the commands that show them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from brigade.cli import main
from brigade.core.messages import Role
from brigade.report.requests_csv import read_requests
from brigade.sim.goodput import GoodputSearch, wilson_interval
from brigade.sim.plan import make_plan, splits
from brigade.sim.scenario import load_scenario
from brigade.sim.simulator import simulate
from brigade.sim.study import RunAsk, at_rate, open_runner

TEXT = """
name = "study"
seed = 3
[workload]
arrivals = "poisson"
rate_rps = 4.0
num_requests = {num}
[[workload.mix]]
isl = 600
osl = 40
[slo]
ttft_s = 0.25
tpot_s = 0.05
[cluster]
profile = "a100/opt-13b/tp1"
[[cluster.workers]]
role = "prefill"
[[cluster.workers]]
role = "decode"
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "study.toml").write_text(TEXT.format(num=200), encoding="utf-8")
    return str(tmp_path / "study.toml")


def test_wilson_intervals_are_the_textbook_ones() -> None:
    """A value from the literature, and the ends."""
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0


def test_runs_in_several_processes_equal_runs_in_one(path: str) -> None:
    """A sweep's figures do not depend on how it was spread."""
    asks = [RunAsk(seed=seed, rate_rps=rate) for rate in (2.0, 6.0) for seed in (0, 1)]
    scenario = load_scenario(path)
    with open_runner(scenario, 1) as one, open_runner(scenario, 2) as two:
        assert list(one.run(asks)) == list(two.run(asks))


def test_the_goodput_holds_and_a_little_more_does_not(path: str) -> None:
    """The answer's own point meets the target, the next point tried above it does not, and the interval holds it."""
    with open_runner(load_scenario(path), 1) as runner:
        found = GoodputSearch(runner, [0]).goodput(0.9, 4.0, tolerance=0.02)
    by_rate = {point.rate_rps: point for point in found.points}
    assert by_rate[found.rate_rps].attainment >= 0.9
    above = min(rate for rate, point in by_rate.items() if rate > found.rate_rps and point.attainment < 0.9)
    assert above <= found.rate_rps * 1.021
    assert found.low_rps <= found.rate_rps <= found.high_rps


def test_every_split_of_a_size_is_tried(path: str) -> None:
    """Four GPUs: mixed workers alone, and three ways to divide them."""
    found = list(splits(load_scenario(path), 4))
    assert [str(split) for split in found] == ["4 mixed", "1P3D", "2P2D", "3P1D"]
    assert [worker.role for worker in found[1].workers] == [Role.PREFILL] + [Role.DECODE] * 3


def test_a_plan_is_the_smallest_cluster_that_holds(path: str) -> None:
    """Everything smaller was tried and failed, and both kinds are compared at its size."""
    scenario = at_rate(load_scenario(path), 9.0)
    with open_runner(scenario, 1) as runner:
        plan = make_plan(runner, [0], target=0.9, rate_rps=9.0, max_gpus=6)
    assert plan.best is not None
    assert plan.best.point.attainment >= 0.9
    smaller = [one for one in plan.tried if one.split.num_gpus < plan.best.split.num_gpus]
    assert all(one.point.attainment < 0.9 for one in smaller)
    assert plan.disaggregated is not None
    assert plan.aggregated is not None
    assert plan.margin is not None


def test_ctrl_c_keeps_what_was_computed(tmp_path: Path) -> None:
    """The requests that had ended are in the result, and it says that it is cut."""
    (tmp_path / "study.toml").write_text(TEXT.format(num=5000), encoding="utf-8")
    scenario = load_scenario(str(tmp_path / "study.toml"))

    def press(done: int, now_ns: int) -> None:
        if done >= 2000:
            signal.raise_signal(signal.SIGINT)

    result = simulate(scenario, on_progress=press)
    assert result.was_interrupted
    assert 2000 <= len(result.timelines) < 5000
    assert sum(t.is_complete for t in result.timelines) >= 2000


def test_the_command_writes_report_and_requests(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run: N and horizon in the text, every request in the file."""
    out = tmp_path / "out"
    assert main(["sim", path, "--out", str(out)]) == 0
    assert "N = 200 requests over" in capsys.readouterr().out
    assert len(read_requests(out / "requests.csv.gz")) == 200
    assert (out / "result.json").is_file()


def test_a_sweep_and_a_search_state_n_and_horizon(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both tables have a column for each."""
    assert main(["sim", path, "--rates", "2,4", "--seeds", "2"]) == 0
    swept = capsys.readouterr().out
    assert main(["sim", path, "--goodput", "90"]) == 0
    searched = capsys.readouterr().out
    for text in (swept, searched):
        assert "horizon" in text
        assert "| 400 " in text or "|  400 " in text or " 200 " in text
    assert "attainment holds up to" in searched


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--rates", "0"], "--rates"),
        (["--seeds", "none"], "--seeds"),
        (["--goodput", "101"], "--goodput"),
        (["--goodput", "90", "--rates", "1"], "--rates"),
        (["--processes", "0"], "--processes"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_runs(
    path: str, flags: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence that names the flag, and a status other than 0."""
    assert main(["sim", path, *flags]) != 0
    captured = capsys.readouterr()
    assert word in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
