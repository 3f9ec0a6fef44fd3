"""An emulated 2P2D for real: `brigade up --emulate`, a seeded workload by `brigade bench`, the report, `brigade compare`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brigade_up import Installation, brigade_up, user_environment

from brigade.report import RunResult
from brigade.report.requests_csv import read_requests

PROFILE = "h100/llama-3.1-8b/tp1"
DEADLINE_S = 120
TIME_SCALE = 5

SCENARIO = f"""
name = "two-and-two"
seed = 11
[workload]
rate_rps = 40.0
num_requests = 60
max_osl = 30
[[workload.mix]]
isl_median = 300
osl_median = 12
[slo]
ttft_s = 0.2
tpot_s = 0.05
[cluster]
profile = "{PROFILE}"
[[cluster.workers]]
role = "prefill"
count = 2
[[cluster.workers]]
role = "decode"
count = 2
"""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "two.toml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """2P2D in two processes, drained at the end."""
    flags = ("--name", f"e2e-{secrets.token_hex(4)}", "--emulate", PROFILE, "--prefill", "2", "--decode", "2")
    scaled = ("--time-scale", str(TIME_SCALE), "--workers-per-process", "2")
    with brigade_up(*flags, *scaled, env=user_environment(tmp_path_factory.mktemp("up"))) as installation:
        installation.wait_until_ready()
        yield installation
        assert installation.stop() == 0, installation.text


def bench(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brigade.cli", "bench", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_a_seeded_workload_is_answered_and_reported(emulated: Installation, scenario: Path, tmp_path: Path) -> None:
    """Every request is answered to its last token, and the report says what its own rows say."""
    files = "--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"), "--plot", str(tmp_path / "r.txt")
    done = bench(str(scenario), "--url", emulated.url, *files)
    assert done.returncode in (0, 1), done.stderr  # 1: a busy machine, and the report says so
    result = RunResult.load(tmp_path / "r.json")
    assert (result.kind, result.time_scale, result.seed) == ("emulated", TIME_SCALE, 11)
    assert result.validity.is_valid == (done.returncode == 0)
    assert {lag.process.split()[0] for lag in result.validity.lags} == {"worker", "router", "brigade"}
    assert sum(lag.process.startswith("worker") for lag in result.validity.lags) == 2
    rows = read_requests(tmp_path / "r.csv")
    assert (len(rows), result.summary.all.num_complete) == (60, 60)
    ttft_s = [(t.first_token_ns - t.arrival_ns) / 1e9 for t in rows if t.first_token_ns is not None]
    assert result.summary.all.ttft is not None
    assert result.summary.all.ttft.mean_s == pytest.approx(statistics.fmean(ttft_s))
    assert result.summary.all.ttft.p50_s == pytest.approx(statistics.median(ttft_s))
    # No emulated step is shorter than its profile says, however fast the host is.
    assert min(ttft_s) > 0.007
    assert all(t.tpot_s is None or t.tpot_s > 0.005 for t in rows)
    assert "N = 60 requests over" in done.stdout
    assert (tmp_path / "r.txt").read_text().startswith("two-and-two (emulated)")
    compared = subprocess.run(
        [sys.executable, "-m", "brigade.cli", "compare", str(tmp_path / "r.json"), str(tmp_path / "r.json")],
        capture_output=True, text=True, timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    assert "TTFT p50" in compared.stdout
    assert "1.000 to 1.000" in compared.stdout


def test_no_process_of_an_emulated_installation_loads_torch(emulated: Installation) -> None:
    """Sixteen workers on a laptop: an interpreter with torch would cost as much memory as all of them."""
    children = emulated.children()
    assert sum("services.worker.emulated" in command for command in children.values()) == 2
    for pid, command in children.items():
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text(), command


def test_ctrl_c_keeps_what_came(emulated: Installation, tmp_path: Path) -> None:
    """An hour's workload, ended after its first answers: they are in the report, which says that it was cut."""
    shape = ("--rate-rps", "2", "--num-requests", "1000", "--isl", "20", "--osl", "2")
    files = ("--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"))
    command = [sys.executable, "-m", "brigade.cli", "bench", *shape, *files, "--url", emulated.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Ctrl-C ends it" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (0, 1)
    result = RunResult.load(tmp_path / "r.json")
    assert result.is_cut
    assert "ended early" in out
    assert result.summary.all.num_requests == len(read_requests(tmp_path / "r.csv")) < 1000
    assert result.summary.all.num_failed == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--time-scale", "7"), f"--time-scale 7, but the system runs at {TIME_SCALE}"),
        (("--max-s", "1"), "more than --max-s 1"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    emulated: Installation, scenario: Path, flags: tuple[str, str], said: str
) -> None:
    """One sentence with the estimate, and nothing is sent."""
    done = bench(str(scenario), "--url", emulated.url, *flags)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_machine_that_cannot_keep_up_makes_the_run_invalid(tmp_path: Path, scenario: Path) -> None:
    """At a time scale of 0.01 a step should last 60 us: no event loop is that punctual, and the report must say so."""
    flags = ("--name", f"e2e-{secrets.token_hex(4)}", "--emulate", PROFILE, "--mixed", "1", "--time-scale", "0.01")
    with brigade_up(*flags, env=user_environment(tmp_path)) as installation:
        installation.wait_until_ready()
        done = bench(
            str(scenario), "--url", installation.url, "--num-requests", "5", "--json", str(tmp_path / "r.json")
        )
        assert installation.stop() == 0
    assert done.returncode == 1
    assert "This run is invalid" in done.stdout
    assert "choose a larger --time-scale" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["validity"]["reasons"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--emulate", "h100/gpt-9/tp1"), "no profile is called 'h100/gpt-9/tp1'"),
        (("--time-scale", "10"), "time_scale must be 1 without --emulate"),
        (("--emulate", PROFILE, "--time-scale", "0"), "time_scale must be above zero"),
    ],
)
def test_wrong_emulations_are_refused(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """Before anything starts."""
    command = [sys.executable, "-m", "brigade.cli", "up", *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=user_environment(tmp_path)
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert os.listdir(tmp_path) == []
