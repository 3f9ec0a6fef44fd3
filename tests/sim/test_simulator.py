"""The simulator as a whole: small scenarios with a known outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from brigade.core.errors import ConfigError
from brigade.core.timeline import attainment
from brigade.policies.cost_model import PrefillPart
from brigade.policies.profile import load_profile
from brigade.sim.scenario import Scenario, load_scenario
from brigade.sim.simulator import Simulator, simulate
from brigade.workload import WorkloadRequest

BASE = """
name = "test"
[workload]
arrivals = "fixed"
rate_rps = 1.0
num_requests = {num_requests}
[[workload.mix]]
isl = {isl}
osl = {osl}
[slo]
ttft_s = 0.25
tpot_s = 0.1
[cluster]
profile = "a100/opt-13b/tp1"
{cluster}
[[cluster.workers]]
role = "{first}"
count = {num_first}
[[cluster.workers]]
role = "{second}"
count = {num_second}
"""


def scenario(
    tmp_path: Path,
    *,
    more: str = "",
    num_requests: int = 5,
    isl: int = 100,
    osl: int = 4,
    cluster: str = "",
    first: str = "prefill",
    num_first: int = 1,
    second: str = "decode",
    num_second: int = 1,
) -> Scenario:
    path = tmp_path / "scenario.toml"
    text = BASE.format(
        num_requests=num_requests,
        isl=isl,
        osl=osl,
        cluster=cluster,
        first=first,
        num_first=num_first,
        second=second,
        num_second=num_second,
    )
    path.write_text(text + more, encoding="utf-8")
    return load_scenario(str(path))


def test_a_lone_request_takes_what_the_cost_model_says(tmp_path: Path) -> None:
    """Prefill, then transfer, then one step per token: nothing else takes time."""
    costs = load_profile("a100/opt-13b/tp1")
    [timeline] = simulate(scenario(tmp_path, num_requests=1)).timelines
    prefill_ns = costs.prefill_ns([PrefillPart(num_new_tokens=100)])
    joined_ns = prefill_ns + costs.kv_transfer_ns(100)
    arrival_ns = timeline.arrival_ns
    assert timeline.claimed_ns == arrival_ns
    assert timeline.first_token_ns == arrival_ns + prefill_ns
    assert timeline.decoding_ns == arrival_ns + joined_ns
    assert timeline.last_token_ns == arrival_ns + joined_ns + costs.decode_run_ns(1, 100, 3)
    assert timeline.osl == 4


def test_an_answer_of_one_token_is_never_handed_over(tmp_path: Path) -> None:
    """The first token is the last: the prefill worker ends the request."""
    for timeline in simulate(scenario(tmp_path, osl=1)).timelines:
        assert timeline.decoding_ns is None
        assert timeline.last_token_ns == timeline.first_token_ns


def test_long_prompts_are_computed_in_chunks_of_the_budget(tmp_path: Path) -> None:
    """A prompt longer than the budget takes several steps, each priced with its context."""
    costs = load_profile("a100/opt-13b/tp1")
    found = scenario(tmp_path, num_requests=1, isl=1000, osl=1, cluster="max_batch_tokens = 400")
    [timeline] = simulate(found).timelines
    chunks = [(400, 0), (400, 400), (200, 800)]
    expected = sum(costs.prefill_ns([PrefillPart(num_new_tokens=n, num_context_tokens=c)]) for n, c in chunks)
    assert timeline.ttft_s == expected / 1e9


def test_a_mixed_worker_decodes_in_place(tmp_path: Path) -> None:
    """No transfer, and decoding goes on while the next prompt is prefilled in the same steps."""
    found = scenario(tmp_path, first="mixed", second="mixed", num_requests=20, osl=100)
    result = simulate(found)
    assert all(t.decoding_ns == t.first_token_ns for t in result.timelines)
    assert all(t.is_complete for t in result.timelines)


def test_a_request_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    """Refused at arrival, counted as a miss, and the rest goes on."""
    found = scenario(tmp_path, cluster="block_size_tokens = 16")
    works = [
        WorkloadRequest(arrival_ns=0, isl=100_000, osl=4),
        WorkloadRequest(arrival_ns=1, isl=100, osl=4),
    ]
    large, small = Simulator(found, works).run().timelines
    assert large.refused
    assert not large.meets_slo
    assert small.is_complete


@pytest.mark.parametrize(("worker", "attempts"), [("p0", 2), ("d0", 2)])
def test_a_killed_worker_costs_an_attempt_and_no_request(tmp_path: Path, worker: str, attempts: int) -> None:
    """What a dead worker held is started again from the accepted prefix once its heartbeat has gone."""
    more = f'[[failures]]\nworker = "{worker}"\nat_s = 3.02\n'
    found = scenario(tmp_path, more=more, num_requests=8, isl=2000, osl=100, num_first=2, num_second=2)
    result = simulate(found)
    assert result.num_unfinished == 0
    assert [t.osl for t in result.timelines] == [100] * 8
    assert max(t.attempts for t in result.timelines) == attempts


def test_a_worker_that_comes_back_serves_again(tmp_path: Path) -> None:
    """Without a second decode worker everything waits for the return of the only one."""
    more = '[[failures]]\nworker = "d0"\nat_s = 3.5\nback_after_s = 20\n'
    result = simulate(scenario(tmp_path, more=more, num_requests=8, osl=50))
    assert result.num_unfinished == 0
    assert max(t.e2e_s or 0 for t in result.timelines) > 15


def test_requests_that_nobody_is_left_to_serve_are_counted(tmp_path: Path) -> None:
    """The run ends, and says how many never did."""
    more = '[[failures]]\nworker = "d0"\nat_s = 2.0\n'
    result = simulate(scenario(tmp_path, more=more, num_requests=8, osl=50))
    assert result.num_unfinished > 0
    assert len(result.timelines) == 8
    assert attainment(result.timelines) < 1


def test_a_flip_drains_switches_and_serves(tmp_path: Path) -> None:
    """The worker finishes what it has, and then works in its new role; nothing is lost."""
    more = (
        '[[flips]]\nworker = "p1"\nrole = "decode"\nat_s = 3.01\n[[flips]]\nworker = "p0"\nrole = "decode"\nat_s = 4\n'
    )
    result = simulate(scenario(tmp_path, more=more, num_requests=10, isl=1500, osl=50, num_first=2))
    done, refused = result.flips
    assert done.switched_ns is not None
    assert done.switched_ns >= done.decided_ns
    assert refused.switched_ns is None
    assert "prefill" in refused.reason
    assert all(t.is_complete for t in result.timelines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rate_rps = 1.0", "rate_rps = 0"), (":5:", "rate_rps", "above 0")),
        (("isl = 100", "isl = 100\nlength = 3"), ("workload.mix.length", "not known")),
        (("[cluster]", '[cluster]\nbatching = "best"'), ("cluster.batching", "class-priority-arrival")),
        (("ttft_s = 0.25", "ttft_s = 0.001"), ("slo.ttft_s", "impossible")),
        (('role = "prefill"', 'role = "decode"'), ("cluster.workers", "no worker would prefill")),
        (('"a100/opt-13b/tp1"', '"a100/opt-14b/tp1"'), ("cluster.workers", "opt-14b")),
        (("isl = 100", "isl = 100000"), ("cluster.workers", "impossible")),
        (("[cluster]", "[clusters]"), ("cluster", "missing")),
    ],
)
def test_nonsense_is_refused_in_one_sentence(tmp_path: Path, change: tuple[str, str], words: tuple[str, ...]) -> None:
    """File, line and field are named."""
    scenario(tmp_path)
    path = tmp_path / "scenario.toml"
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_scenario(str(path))
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
