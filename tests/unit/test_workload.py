"""Workloads: what was asked for comes out, the same every time, and broken files are named."""

from __future__ import annotations

import gzip
import hashlib
import math
from itertools import pairwise
from pathlib import Path

import pytest

from brigade.core.errors import ConfigError
from brigade.workload import WorkloadRequest, generate, load_workload
from brigade.workload.toml_table import TomlFile
from brigade.workload.trace import read_trace

MIX = "[[workload.mix]]\nisl = 10\nosl = 5\n"
HEADER = "arrival_s,input_tokens,output_tokens,source\n"


def requests_of(tmp_path: Path, text: str, *, seed: int = 0, rate_rps: float | None = None) -> list[WorkloadRequest]:
    path = tmp_path / "w.toml"
    path.write_text(text, encoding="utf-8")
    spec = load_workload(TomlFile.read(str(path)).root())
    if rate_rps is not None:
        spec = spec.at_rate(rate_rps)
    return list(generate(spec, seed, unloaded_prefill_ns=lambda isl: isl * 1_000_000))


def workload(arrivals: str, more: str = "", *, num: int = 20_000, rate: float = 10.0) -> str:
    return f'[workload]\narrivals = "{arrivals}"\nrate_rps = {rate}\nnum_requests = {num}\n{more}\n{MIX}'


def gaps_of(requests: list[WorkloadRequest]) -> list[int]:
    return [b.arrival_ns - a.arrival_ns for a, b in pairwise(requests)]


@pytest.mark.parametrize(
    ("arrivals", "more", "cv"), [("poisson", "", 1.0), ("gamma", "cv = 2.5", 2.5), ("fixed", "", 0.0)]
)
def test_arrivals_have_the_rate_and_the_variation_asked_for(
    tmp_path: Path, arrivals: str, more: str, cv: float
) -> None:
    """Mean gap and coefficient of variation, within sampling error."""
    gaps = gaps_of(requests_of(tmp_path, workload(arrivals, more)))
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(1e8, rel=0.06)
    assert deviation / mean == pytest.approx(cv, rel=0.06, abs=1e-6)


def test_a_seed_gives_the_same_requests_on_every_python(tmp_path: Path) -> None:
    """The bytes are written down here, so that another Python or platform that differs is found out."""
    text = workload("gamma", "cv = 2.0", num=500).replace("isl = 10\nosl = 5", "isl_median = 300\nosl_median = 80")
    found = [(r.arrival_ns, r.isl, r.osl) for r in requests_of(tmp_path, text, seed=7)]
    assert found == [(r.arrival_ns, r.isl, r.osl) for r in requests_of(tmp_path, text, seed=7)]
    assert found != [(r.arrival_ns, r.isl, r.osl) for r in requests_of(tmp_path, text, seed=8)]
    assert hashlib.sha256(repr(found).encode()).hexdigest()[:16] == "a03abd219b715767"


def test_another_rate_is_the_same_requests_closer_together(tmp_path: Path) -> None:
    """Rates of a sweep are compared on the same requests."""
    slow = requests_of(tmp_path, workload("poisson", num=100))
    fast = requests_of(tmp_path, workload("poisson", num=100), rate_rps=20.0)
    assert [r.isl for r in slow] == [r.isl for r in fast]
    assert all(abs(a.arrival_ns - 2 * b.arrival_ns) <= 2 for a, b in zip(slow, fast, strict=True))


def test_phases_have_their_own_rates_and_mixes(tmp_path: Path) -> None:
    """Ten seconds of one kind at 50/s, then ten of the other at 100/s, then it ends."""
    text = """
[workload]
arrivals = "poisson"
[[workload.mix]]
name = "long"
isl = 1000
osl = 1
[[workload.mix]]
name = "short"
class = "interactive"
isl = 10
osl = 100
[[workload.phases]]
duration_s = 10
rate_rps = 50
shares = { long = 1 }
[[workload.phases]]
duration_s = 10
rate_rps = 100
shares = { short = 1 }
"""
    requests = requests_of(tmp_path, text)
    early = [r for r in requests if r.arrival_ns < 10**10]
    late = [r for r in requests if r.arrival_ns >= 10**10]
    assert {r.isl for r in early} == {1000}
    assert {(r.isl, r.priority_class) for r in late} == {(10, "interactive")}
    assert len(early) == pytest.approx(500, rel=0.15)
    assert len(late) == pytest.approx(1000, rel=0.12)
    assert requests[-1].arrival_ns < 20 * 10**9


def test_groups_share_prefixes(tmp_path: Path) -> None:
    """Requests of one group have equal leading ids, as many whole blocks as the prefix has."""
    text = (
        workload("burst", num=50)
        .replace("rate_rps = 10.0\n", "")
        .replace("isl = 10", "isl = 2000\nprefix_groups = 3\nprefix_tokens = 1024")
    )
    requests = requests_of(tmp_path, text)
    assert {len(r.prefix_ids) for r in requests} == {2}
    assert len({r.prefix_ids for r in requests}) == 3


def test_targets_may_depend_on_the_unloaded_prefill(tmp_path: Path) -> None:
    """TTFT is the larger of the fixed target and the multiple of what the prompt alone takes."""
    text = workload("poisson", num=1) + "[slo]\nttft_s = 0.02\nttft_unloaded_factor = 5\ntpot_s = 0.1\n"
    [request] = requests_of(tmp_path, text)
    assert (request.slo.ttft_s, request.slo.tpot_s) == (0.05, 0.1)


def test_a_trace_is_replayed_and_scaled(tmp_path: Path) -> None:
    """Arrivals count from the first row; a scale of two halves the gaps; lengths are the rows' own."""
    (tmp_path / "t.csv").write_text(HEADER + "1.0,5,6,x\n2.0,7,8,x\n", encoding="utf-8")
    text = '[workload]\narrivals = "trace"\ntrace = "t.csv"\nrate_scale = 2.0\n'
    assert [(r.arrival_ns, r.isl, r.osl) for r in requests_of(tmp_path, text)] == [(0, 5, 6), (500_000_000, 7, 8)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.0,0,5,x", (":3:", "input_tokens", "'0'")),
        ("1.0,5,-2,x", (":3:", "output_tokens", "'-2'")),
        ("1.0,5,,x", (":3:", "output_tokens", "''")),
        ("soon,5,5,x", (":3:", "arrival_s", "'soon'")),
        ("nan,5,5,x", (":3:", "arrival_s")),
        (",5,5,x", (":3:", "arrival_s", "every row")),
        ("0.1,5,5,x", (":3:", "arrival_s", "goes back")),
        ("1.0,5,5", (":3:", "3 fields")),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: str, words: tuple[str, ...]) -> None:
    """File, line and field, in one sentence."""
    path = tmp_path / "t.csv"
    path.write_text(f"{HEADER}0.5,5,5,x\n{row}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_trace(str(path))
    assert str(caught.value).startswith(str(path))
    for word in words:
        assert word in str(caught.value)


def test_a_broken_archive_and_a_missing_column_are_named(tmp_path: Path) -> None:
    """A truncated download is not a short trace."""
    whole = gzip.compress((HEADER + "0.5,5,5,x\n" * 1000).encode())
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"t\.csv\.gz: cannot be read"):
        read_trace(str(tmp_path / "t.csv.gz"))
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens\n0,1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="output_tokens is missing"):
        read_trace(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (workload("weibull"), (":2:", "workload.arrivals", "poisson")),
        (workload("gamma"), ("workload.cv", "missing")),
        (workload("poisson", "rate = 3"), (":5:", "workload.rate", "not known")),
        (workload("poisson").replace("num_requests = 20000", ""), ("num_requests", "never ends")),
        (workload("poisson").replace("osl = 5", 'class = "vip"\nosl = 5'), ("workload.mix.class", "'vip'")),
        (workload("poisson").replace("osl = 5", ""), ("workload.mix.osl", "missing")),
        (workload("poisson") + "[slo]\ntpot_s = 0\n", ("slo.tpot_s", "above 0")),
        (workload("poisson") + "[slo.batch]\nttft = 1\n", ("slo.batch.ttft", "not known")),
        ('[workload]\narrivals = "trace"\n', ("workload.trace", "missing")),
        ("[workload]\narrivals = \n", ("is not TOML",)),
    ],
)
def test_a_wrong_workload_is_one_sentence(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    """File, line and field."""
    with pytest.raises(ConfigError) as caught:
        requests_of(tmp_path, text)
    for word in ("w.toml", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
