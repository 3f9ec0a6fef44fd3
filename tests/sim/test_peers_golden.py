"""Peer modes give, request by request, what the unmodified peers give."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from brigade.sim.peers import PEERS, PeerWorkload, Placement

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE_MS = 0.01
RUNS = {run["tag"]: run for run in json.loads((GOLDEN / "simdistserve_summary.json").read_text())}


def read_rows(tag: str) -> list[dict[str, str]]:
    with gzip.open(GOLDEN / f"simdistserve_{tag}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def simulate(tag: str, rows: list[dict[str, str]]):
    tp_prefill, pp_prefill, tp_decode, pp_decode = RUNS[tag]["tp_pp"]
    placement = Placement(
        model=RUNS[tag]["model"],
        tp_prefill=tp_prefill,
        pp_prefill=pp_prefill,
        tp_decode=tp_decode,
        pp_decode=pp_decode,
    )
    workload = PeerWorkload(
        arrival_ms=[float(row["arrival_s"]) * 1000 for row in rows],
        input_tokens=[int(row["input_tokens"]) for row in rows],
        output_tokens=[int(row["output_tokens"]) for row in rows],
    )
    return PEERS[RUNS[tag]["backend"]](placement, workload)


@pytest.mark.parametrize(
    "tag",
    [
        "opt13b_alpaca_dist_r8",
        "opt13b_sharegpt_dist_r1.5",
        "opt13b_sharegpt_dist_r2.5",
        "opt13b_sharegpt_vllm_r1.0",
        "opt66b_humaneval_dist_r1.125",
        "opt66b_humaneval_vllm_r0.625",
    ],
)
def test_every_request_equals_simdistserve(tag: str) -> None:
    """Light load, overload beyond the step budget, pipelined decode and the colocated mode are all among the six."""
    rows = read_rows(tag)
    assert len(rows) == RUNS[tag]["N"] == 600
    run = simulate(tag, rows)
    for column in ("ttft_ms", "tpot_ms", "total_ms"):
        ours = getattr(run, column)
        worst = max(range(len(rows)), key=lambda row: abs(ours[row] - float(rows[row][column])))
        assert ours[worst] == pytest.approx(float(rows[worst][column]), abs=TOLERANCE_MS), (column, worst)


@pytest.mark.parametrize("tag", sorted(RUNS))
def test_attainment_equals_simdistserve(tag: str) -> None:
    """The share inside both targets is what the peer's own summary says, to its two digits."""
    ttft_ms, tpot_ms = RUNS[tag]["slo_ms"]
    attainment = simulate(tag, read_rows(tag)).attainment(ttft_ms=ttft_ms, tpot_ms=tpot_ms)
    assert 100 * attainment == pytest.approx(RUNS[tag]["attain_both"], abs=0.005)


def test_no_golden_file_is_left_untested() -> None:
    """A golden file without a setting would otherwise lie there unread."""
    tags = {
        path.name.removeprefix("simdistserve_").removesuffix(".csv.gz") for path in GOLDEN.glob("simdistserve_*.gz")
    }
    assert tags == set(RUNS)
