"""The load generator: prompts from a seed, requests on time, latency from when a request was due, and an honest count of ends."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brigade.bench.client import Reply
from brigade.bench.open_loop import LoadLimits, LoadOutcome, OpenLoop
from brigade.bench.prompts import PromptMaker
from brigade.bench.system import view_of
from brigade.commands.bench import make_plan, parser
from brigade.core.errors import ConfigError
from brigade.report import summarise
from brigade.workload import WorkloadRequest

MS = 1_000_000
LIMITS = LoadLimits(max_s=60, drain_s=30)


def make_prompts(seed: int = 0) -> PromptMaker:
    return PromptMaker(seed=seed, low_id=300, high_id=1000, prefix_block_tokens=4)


class StubClient:
    """Answers at once; `fates` says otherwise by the number of the request. `body_s` is how long making a request takes."""

    def __init__(self, *, body_s: float = 0.0, fates: dict[int, str] | None = None) -> None:
        self._body_s = body_s
        self._fates = fates or {}
        self._num = 0
        self.sent: list[bytes] = []

    def body(self, prompt: Sequence[int], *, num_tokens: int, priority_class: str) -> bytes:
        time.sleep(self._body_s)
        return f"{num_tokens}".encode()

    async def complete(self, body: bytes, reply: Reply) -> None:
        fate = self._fates.get(self._num, "answered")
        self._num += 1
        self.sent.append(body)
        if fate == "refused":
            reply.refused, reply.error = True, "HTTP 429"
            return
        reply.token_ns += [time.monotonic_ns()] * (1 if fate == "short" else int(body))
        if fate == "hangs":
            await asyncio.sleep(3600)
        if fate != "broken":
            reply.error = None


async def offer(
    client: StubClient, requests: list[WorkloadRequest], *, limits: LoadLimits = LIMITS, time_scale: float = 1.0
) -> LoadOutcome:
    loop = OpenLoop(client, make_prompts(), time_scale=time_scale, limits=limits)  # type: ignore[arg-type]
    return await loop.run(requests, asyncio.Event(), asyncio.Event())


def at(*arrivals_ms: float, osl: int = 2) -> list[WorkloadRequest]:
    return [WorkloadRequest(arrival_ns=round(ms * MS), isl=3, osl=osl) for ms in arrivals_ms]


def test_prompts_are_as_long_as_asked_and_share_what_they_share() -> None:
    """Same seed, same ids; equal leading prefix ids, equal leading tokens; the rest differs."""
    one = WorkloadRequest(arrival_ns=0, isl=20, osl=1, prefix_ids=(7, 8))
    two = dataclasses.replace(one, isl=30, prefix_ids=(7, 9))
    first, second = make_prompts().prompt(0, one), make_prompts().prompt(1, two)
    assert (len(first), len(second)) == (20, 30)
    assert first[:4] == second[:4]
    assert first[4:8] != second[4:8]
    assert first == make_prompts().prompt(0, one) != make_prompts(seed=1).prompt(0, one)
    assert all(300 <= token < 1000 for token in first + second)
    cut = dataclasses.replace(one, isl=6)
    assert make_prompts().prompt(0, cut) == first[:6]


async def test_latency_counts_from_when_a_request_was_due() -> None:
    """A client that is too slow itself reports the delay, not a good latency at a lower load."""
    outcome = await offer(StubClient(body_s=0.03), at(0, 1, 2, 3, 4))
    ttft = [t.ttft_s for t in outcome.timelines]
    assert [t.arrival_ns for t in outcome.timelines] == [0, MS, 2 * MS, 3 * MS, 4 * MS]
    assert all(value is not None and value >= 0.03 * (i + 1) - 0.005 for i, value in enumerate(ttft))


async def test_times_are_stretched_on_the_wire_and_shrunk_in_the_report() -> None:
    """At time scale 5, a request due at 20 ms of model time is sent after 100 ms and reported near 20 ms."""
    start_s = time.monotonic()
    outcome = await offer(StubClient(), at(0, 20), time_scale=5)
    assert time.monotonic() - start_s >= 0.1
    last = outcome.timelines[1]
    assert last.first_token_ns is not None
    assert 20 * MS <= last.first_token_ns <= (time.monotonic() - start_s) / 5 * 1e9


async def test_every_end_is_counted_as_what_it_is() -> None:
    """Refused, broken, short and complete answers; nothing is lost, and errors say why."""
    fates = {1: "refused", 2: "broken", 3: "short"}
    outcome = await offer(StubClient(fates=fates), at(0, 1, 2, 3, 4))
    whole = summarise(outcome.timelines).all
    assert (whole.num_requests, whole.num_complete, whole.num_refused, whole.num_failed) == (5, 2, 1, 2)
    assert dict(outcome.errors) == {"HTTP 429": 1, "no answer": 1, "1 tokens of 2": 1}
    assert outcome.itl_counts_ns[0] == 3  # both tokens of the broken and the complete answers came together


async def test_an_answer_that_never_ends_fails_after_the_drain() -> None:
    """The run is bounded in time; what hangs is a miss and no exception."""
    outcome = await offer(StubClient(fates={0: "hangs"}), at(0, 1), limits=LoadLimits(max_s=60, drain_s=0.05))
    assert [t.is_complete for t in outcome.timelines] == [False, True]
    assert not outcome.is_cut


async def test_offering_ends_when_time_is_over() -> None:
    outcome = await offer(StubClient(), at(0, 1, 3_600_000), limits=LoadLimits(max_s=1, drain_s=1))
    assert outcome.is_cut
    assert len(outcome.timelines) == 2


@pytest.mark.parametrize(("second", "num_ended"), [(False, 2), (True, 1)])
async def test_an_early_end_keeps_what_came(second: bool, num_ended: int) -> None:
    """The first signal ends the offering, the second the waiting for an answer under way."""
    stop, give_up = asyncio.Event(), asyncio.Event()
    client = StubClient()
    released = asyncio.Event()
    plain = client.complete

    async def complete(body: bytes, reply: Reply) -> None:
        if len(client.sent) == 1:
            stop.set()
            if second:
                give_up.set()
            else:
                asyncio.get_running_loop().call_soon(released.set)
            await released.wait()
        await plain(body, reply)

    client.complete = complete  # type: ignore[method-assign]
    loop = OpenLoop(client, make_prompts(), time_scale=1.0, limits=LIMITS)  # type: ignore[arg-type]
    outcome = await loop.run(at(0, 1, 3_600_000), stop, give_up)
    assert outcome.is_cut
    assert len(outcome.timelines) == 2
    assert sum(t.is_complete for t in outcome.timelines) == num_ended


def worker(**changes: Any) -> dict[str, Any]:
    usual = {"pid": 1, "host": "h", "emulates": "a/b/tp1", "time_scale": 10.0, "median_step_s": 0.08}
    return usual | {"worker_id": "w", "sent_s": 1.0, "num_lag_looks": 100, "total_lag_s": 1.0} | changes


def metrics(looks: int, seconds: float) -> str:
    return f"# TYPE x counter\nbrigade_loop_lag_looks_total {looks}.0\nbrigade_loop_lag_seconds_total {seconds}\n"


def test_lag_is_that_of_the_run_not_of_the_start() -> None:
    """Loops are told apart by process; the start of a process, always slow, does not count."""
    before = view_of([worker(), worker(pid=2)], metrics(10, 5.0))
    now = [worker(num_lag_looks=200, total_lag_s=1.1), worker(pid=2, num_lag_looks=200, total_lag_s=3.0)]
    lags = {lag.process: lag.mean_lag_s for lag in view_of(now, metrics(110, 5.2)).lags_since(before)}
    assert lags == pytest.approx({"worker process 1 on h": 0.001, "worker process 2 on h": 0.02, "router": 0.002})


def test_a_process_that_came_or_went_was_not_looked_at() -> None:
    """A worker process that was restarted in the middle makes the run invalid, not unnoticed."""
    before = view_of([worker()], metrics(10, 5.0))
    lags = view_of([worker(pid=2)], metrics(20, 5.0)).lags_since(before)
    assert {lag.process: lag.num_looks for lag in lags} == {
        "router": 10,
        "worker process 1 on h": 0,
        "worker process 2 on h": 0,
    }


def test_workers_must_agree_on_what_they_pretend() -> None:
    with pytest.raises(ConfigError, match="do not agree"):
        view_of([worker(), worker(emulates="", time_scale=1.0)], "")
    assert view_of([worker(median_step_s=0.0), worker(), worker(median_step_s=0.02)], "").median_step_s == 0.02


def args_of(*argv: str) -> argparse.Namespace:
    return parser().parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--rate-rps", "0", "--num-requests", "1", "--isl", "1", "--osl", "1"), "--rate-rps must be above zero"),
        (("--rate-rps", "1"), "--num-requests, --isl, --osl missing"),
        (("x.toml", "--isl", "3"), "--isl is the scenario's to say"),
        (("nowhere.toml",), "nowhere.toml: cannot be read"),
        (("--plot", "run.pdf"), "a plot ends in one of"),
        (("--json", "/nowhere/at/all.json"), "there is no folder /nowhere/at"),
        (("--low-token-id", "9", "--high-token-id", "9"), "must be below --high-token-id"),
    ],
)
def test_wrong_flags_are_named(argv: tuple[str, ...], said: str) -> None:
    """One sentence, before anything is sent."""
    with pytest.raises(ConfigError, match=said):
        make_plan(args_of(*argv))


def test_a_scenario_is_the_simulators(tmp_path: Path) -> None:
    """The same file and seed give the requests that the simulator sees; flags change rate, seed and number."""
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\nseed = 5\n[workload]\nrate_rps = 2.0\nnum_requests = 30\n[[workload.mix]]\nisl = 9\nosl = 4\n'
        '[slo]\nttft_unloaded_factor = 3.0\n[cluster]\nprofile = "h100/llama-3.1-8b/tp1"\n'
        '[[cluster.workers]]\nrole = "mixed"\n'
    )
    plan = make_plan(args_of(str(path)))
    assert (plan.name, plan.seed, len(plan.requests)) == ("s", 5, 30)
    assert plan.requests[0].slo.ttft_s is not None
    faster = make_plan(args_of(str(path), "--rate-rps", "4", "--num-requests", "10"))
    assert [r.arrival_ns * 2 for r in faster.requests] == pytest.approx(
        [r.arrival_ns for r in plan.requests[:10]], abs=2
    )
