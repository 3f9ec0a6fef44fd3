"""The report against brute force, and what it must never hide: refusals, failures, N, horizon, a lagging machine."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
from pathlib import Path

import numpy as np
import pytest

from brigade.core.errors import ConfigError
from brigade.core.timeline import SLO, RequestTimeline
from brigade.report import ProcessLag, RunResult, summarise
from brigade.report.provenance import Provenance
from brigade.report.requests_csv import read_requests, write_requests
from brigade.report.statistics import Distribution
from brigade.report.tables import markdown
from brigade.report.validity import judge_lag

MS = 1_000_000
SLO_TARGETS = SLO(ttft_s=0.2, tpot_s=0.02)


def make_timelines(num: int, seed: int) -> list[RequestTimeline]:
    """Complete, refused and failed requests of two classes, in order of arrival."""
    chance = random.Random(seed)
    timelines, arrival_ns = [], 5 * MS
    for number in range(num):
        arrival_ns += chance.randrange(100 * MS)
        common = {
            "request_id": f"r{number}",
            "priority_class": chance.choice(["interactive", "batch"]),
            "isl": chance.randrange(1, 2000),
            "arrival_ns": arrival_ns,
            "slo": SLO_TARGETS,
        }
        fate = chance.random()
        if fate < 0.1:
            timelines.append(RequestTimeline(**common, osl=0, refused=True))
        elif fate < 0.2:
            timelines.append(RequestTimeline(**common, osl=1, first_token_ns=arrival_ns + 3 * MS))
        else:
            osl = chance.randrange(1, 50)
            first = arrival_ns + chance.randrange(300 * MS)
            last = first + (osl - 1) * chance.randrange(5 * MS, 30 * MS)
            times = {"claimed_ns": first - 2 * MS, "first_token_ns": first, "last_token_ns": last}
            timelines.append(RequestTimeline(**common, osl=osl, **times, num_cached_tokens=osl))
    return timelines


def result_of(timelines: list[RequestTimeline], **changes: object) -> RunResult:
    origin = Provenance(command="brigade bench x", commit="abc", hardware="2 CPUs", python="3.11.7")
    result = RunResult(
        kind="emulated", name="x", seed=1, provenance=origin, settings={"rate": "2"}, summary=summarise(timelines)
    )
    return dataclasses.replace(result, **changes)


def test_figures_equal_brute_force() -> None:
    """Each figure is computed again by numpy and by hand."""
    timelines = make_timelines(400, seed=1)
    summary = summarise(timelines)
    done = [t for t in timelines if t.last_token_ns is not None and not t.refused]
    ttft = [(t.first_token_ns - t.arrival_ns) / 1e9 for t in done]
    tpot = [(t.last_token_ns - t.first_token_ns) / 1e9 / (t.osl - 1) for t in done if t.osl > 1]
    for found, values in ((summary.all.ttft, ttft), (summary.all.tpot, tpot)):
        assert found is not None
        assert found.num_samples == len(values)
        assert found.mean_s == pytest.approx(statistics.fmean(values))
        for percent, value in ((50, found.p50_s), (90, found.p90_s), (99, found.p99_s)):
            assert value == pytest.approx(float(np.percentile(values, percent)))
    ends = [max(t.arrival_ns, t.last_token_ns or 0, t.first_token_ns or 0) for t in timelines]
    horizon_s = (max(ends) - timelines[0].arrival_ns) / 1e9
    in_slo = sum(
        (t.first_token_ns - t.arrival_ns) / 1e9 <= 0.2
        and (t.osl < 2 or (t.last_token_ns - t.first_token_ns) / 1e9 / (t.osl - 1) <= 0.02)
        for t in done
    )
    assert summary.horizon_s == pytest.approx(horizon_s)
    assert summary.all.attainment == in_slo / 400
    assert summary.goodput_rps == pytest.approx(in_slo / horizon_s)
    assert summary.throughput_rps == pytest.approx(len(done) / horizon_s)
    assert summary.num_output_tokens == sum(t.osl for t in timelines)


def test_refused_and_failed_requests_are_misses_of_their_own_kind() -> None:
    """Attainment divides by all requests that were offered, and the three ends add up."""
    timelines = make_timelines(400, seed=2)
    parts = summarise(timelines).by_class
    whole = summarise(timelines).all
    assert whole.num_refused == sum(t.refused for t in timelines) > 0
    assert whole.num_failed > 0
    assert whole.num_complete + whole.num_refused + whole.num_failed == 400
    assert sum(part.num_requests for part in parts.values()) == 400
    everything_in_time = [dataclasses.replace(t, slo=SLO()) for t in timelines]
    assert summarise(everything_in_time).all.attainment == whole.num_complete / 400


def test_nothing_and_one_request_have_a_report() -> None:
    """A run that Ctrl-C ended at once must still say so."""
    empty = summarise([])
    assert (empty.all.num_requests, empty.horizon_s, empty.goodput_rps, empty.all.ttft) == (0, 0.0, 0.0, None)
    assert "N = 0" in markdown(result_of([], is_cut=True))
    one = RequestTimeline(request_id="a", priority_class="standard", isl=1, osl=1, arrival_ns=7, first_token_ns=9)
    assert summarise([one]).all.num_failed == 1


def test_gaps_counted_are_gaps_listed() -> None:
    """The weighted percentiles of inter-token gaps equal those of the whole list."""
    chance = random.Random(3)
    gaps = [chance.randrange(1, 30) * MS for _ in range(500)]
    counted = Distribution.of_counts({gap: gaps.count(gap) for gap in set(gaps)})
    listed = Distribution.of(gap / 1e9 for gap in gaps)
    assert counted is not None
    assert listed is not None
    for name in ("num_samples", "mean_s", "p50_s", "p90_s", "p99_s", "min_s", "max_s"):
        assert getattr(counted, name) == pytest.approx(getattr(listed, name)), name


def test_attainment_never_falls_when_targets_are_relaxed() -> None:
    """Property over a grid of targets."""
    timelines = make_timelines(200, seed=4)
    shares = []
    for factor in (0.1, 0.3, 0.6, 1, 2, 5, 100):
        slo = SLO(ttft_s=0.1 * factor, tpot_s=0.01 * factor)
        shares.append(summarise([dataclasses.replace(t, slo=slo) for t in timelines]).all.attainment)
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


@pytest.mark.parametrize("name", ["requests.csv", "requests.csv.gz"])
def test_requests_survive_their_file(tmp_path: Path, name: str) -> None:
    """The comparison reads what the run wrote; equal runs write equal bytes."""
    timelines = make_timelines(50, seed=5)
    write_requests(tmp_path / name, timelines)
    assert read_requests(tmp_path / name) == timelines
    again = tmp_path / "again" / name
    again.parent.mkdir()
    write_requests(again, timelines)
    assert again.read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("column", "value"), [("isl", "many"), ("arrival_ns", ""), ("slo_ttft_s", "soon"), ("refused", "perhaps")]
)
def test_a_broken_row_is_named(tmp_path: Path, column: str, value: str) -> None:
    """File, line and column."""
    path = tmp_path / "requests.csv"
    write_requests(path, make_timelines(3, seed=6))
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[lines[0].split(",").index(column)] = value
    path.write_text("\n".join([*lines[:2], ",".join(cells)]) + "\n")
    with pytest.raises(ConfigError, match=rf"requests\.csv:3: {column} must be a"):
        read_requests(path)


def test_result_survives_its_file(tmp_path: Path) -> None:
    """What is loaded equals what was saved, to the byte."""
    result = result_of(
        make_timelines(30, seed=7),
        validity=judge_lag([ProcessLag(process="w", num_looks=9, mean_lag_s=0.001)], median_step_s=0.08),
    )
    path = tmp_path / "result.json"
    result.save(path)
    loaded = RunResult.load(path)
    assert loaded == result
    assert loaded.to_json() == path.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "brigade-result/0"}, "is not a result of format"),
        ({"seed": "one"}, "seed has a wrong value: 'one'"),
        ({"kind": "imagined"}, "kind has a wrong value"),
        ({"colour": 1}, "colour is unknown"),
        ({"summary": {}}, "is missing"),
    ],
)
def test_a_broken_result_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """File and field."""
    path = tmp_path / "result.json"
    document = json.loads(result_of(make_timelines(5, seed=8)).to_json()) | change
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=said):
        RunResult.load(path)


def test_lag_above_two_percent_of_the_median_step_is_invalid() -> None:
    """The limit itself is allowed; a process that nobody looked at is not."""
    fine = ProcessLag(process="router", num_looks=100, mean_lag_s=0.0016)
    assert judge_lag([fine], median_step_s=0.08).is_valid
    late = ProcessLag(process="bench", num_looks=100, mean_lag_s=0.00161)
    verdict = judge_lag([fine, late], median_step_s=0.08)
    assert len(verdict.reasons) == 1
    assert "bench lags by 1.61 ms" in verdict.reasons[0]
    assert not judge_lag([ProcessLag(process="router", num_looks=0, mean_lag_s=0.0)], median_step_s=0.08).is_valid
    assert not judge_lag([], median_step_s=0.0).is_valid


def test_the_table_says_what_a_reader_must_not_miss() -> None:
    """N, horizon, kind, misses, an invalid run and an early end."""
    text = markdown(
        result_of(
            make_timelines(40, seed=9),
            is_cut=True,
            validity=judge_lag([ProcessLag(process="bench", num_looks=5, mean_lag_s=1.0)], median_step_s=0.01),
        )
    )
    for words in ("N = 40 requests over", "(emulated)", "refused", "failed", "This run is invalid", "ended early"):
        assert words in text
