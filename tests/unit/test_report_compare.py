"""The comparison finds a difference that is there, and none where there is none."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import pytest

from brigade.core.errors import ConfigError
from brigade.core.timeline import RequestTimeline
from brigade.report.compare import compare, markdown
from brigade.report.plot import save_plot, text_plot

MS = 1_000_000


def make_run(seed: int, *, slower: float = 1.0, num: int = 600) -> list[RequestTimeline]:
    chance = random.Random(seed)
    timelines = []
    for number in range(num):
        arrival_ns = number * 10 * MS
        first = arrival_ns + round(chance.lognormvariate(3, 0.6) * MS * slower)
        timelines.append(
            RequestTimeline(
                request_id=str(number),
                priority_class="standard",
                isl=1 + chance.randrange(900),
                osl=11,
                arrival_ns=arrival_ns,
                first_token_ns=first,
                last_token_ns=first + 10 * chance.randrange(8, 12) * MS,
            )
        )
    return timelines


def test_a_run_equals_itself() -> None:
    """Paired draws of one run with itself leave no interval at all."""
    run = make_run(1)
    comparison = compare(run, run)
    assert comparison.is_paired
    assert all((r.ratio, r.low, r.high) == (1, 1, 1) for r in comparison.ratios)


def test_a_slower_run_is_found_with_its_ratio() -> None:
    """1.3 times the TTFT: the interval holds it and not 1, and TPOT stays the same."""
    comparison = compare(make_run(1), make_run(1, slower=1.3))
    ratios = {r.name: r for r in comparison.ratios}
    for name in ("TTFT mean", "TTFT p50", "TTFT p90"):
        assert ratios[name].ratio == pytest.approx(1.3, rel=1e-6)
        assert ratios[name].low <= 1.3 + 1e-6
        assert ratios[name].high >= 1.3 - 1e-6
        assert ratios[name].low > 1
    assert ratios["TPOT p50"].ratio == pytest.approx(1, rel=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Of 40 pairs of equal distributions, the 95 % interval of the median's ratio misses 1 only now and then."""
    misses = 0
    for pair in range(40):
        comparison = compare(make_run(2 * pair, num=200), make_run(2 * pair + 1, num=200), seed=pair, max_resamples=200)
        assert not comparison.is_paired
        ratio = next(r for r in comparison.ratios if r.name == "TTFT p50")
        misses += not ratio.low <= 1 <= ratio.high
    assert misses <= 6


def test_the_same_seed_gives_the_same_intervals() -> None:
    runs = make_run(1), make_run(2)
    assert compare(*runs, seed=3) == compare(*runs, seed=3)
    assert compare(*runs, seed=3) != compare(*runs, seed=4)


def test_refused_runs_have_no_latency_and_are_not_hidden() -> None:
    """A run in which nothing came out has no latency ratio, and an attainment of zero."""
    run = make_run(1, num=50)
    refused = [dataclasses.replace(t, refused=True, osl=0) for t in run]
    ratios = {r.name: r for r in compare(run, refused).ratios}
    assert math.isnan(ratios["TTFT p50"].ratio)
    assert ratios["attainment"].ratio == 0
    assert "N = 50 and 50" in markdown(compare(run, refused), "good", "bad")


def test_a_text_plot_shows_both_latencies(tmp_path: Path) -> None:
    """Without matplotlib there is still a plot; other endings are refused by name."""
    run = make_run(1)
    assert "TTFT by percent of 600 requests" in text_plot(run)
    assert "TPOT by percent of 600 requests" in text_plot(run)
    save_plot(tmp_path / "run.txt", run, title="a title")
    assert (tmp_path / "run.txt").read_text().startswith("a title\n")
    with pytest.raises(ConfigError, match=r"run\.pdf: a plot ends in one of"):
        save_plot(tmp_path / "run.pdf", run, title="a title")
