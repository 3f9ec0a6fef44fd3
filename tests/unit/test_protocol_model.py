"""The protocol model: small scenarios hold, naive mistakes are found, and docs/protocol.md says the same.

The large scenarios and the deep mistakes run with `python -m verification.protocol` (`make evidence`).
"""

import re
from pathlib import Path

import pytest

from verification.protocol.__main__ import main
from verification.protocol.explore import explore
from verification.protocol.mistakes import MISTAKES, switches_of
from verification.protocol.model import Model, Scenario
from verification.protocol.scenarios import SCENARIOS
from verification.protocol.side_models import SIDE_MODELS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"

SMALL_SCENARIOS = (
    "plain-1x3",
    "plain-2x2",
    "lost-2",
    "flip-twice",
    "flip-cancel-3tok",
    "crash-trim",
    "branches-limit",
    "expiry-crash",
    "expiry-trim",
    "outage",
    "outage-2req",
    "outage-owner-crash",
    "lease-2req",
    "lease-crash",
    "lease-expiry",
    "lease-late-owner-crash",
    "limit-crash",
)

SMALL_MISTAKES = (
    "no_holder_fence",
    "register_late+no_gap_rule",
    "no_own_pending",
    "finish_no_state",
    "finish_two_steps",
    "always_hand_over",
    "cas_ignores_state",
    "held_survive",
    "check_before_copy",
    "in_place_kept",
    "no_resync",
    "no_janitor",
    "no_orphan_sweep",
    "cancel_hint_only",
    "no_gap_rule",
    "flip_check_then_act",
    "restart_same_name",
    "pull_failure_not_recorded",
    "no_attempt_limit",
    "stop_without_record",
    "cancel_without_tombstone",
    "goes_on_after_drain",
    "drain_in_two_steps",
    "late_ignores_router_id",
    "janitor_acts_at_once",
    "owner_acts_at_once",
    "lender_acts_at_once",
    "owner_absent_is_refusal",
    "answer_ends_with_first_branch",
    "cancel_first_branch_only",
    "expired_is_not_finished",
    "resend_as_attempt_1",
)


def documented_states() -> dict[str, int]:
    """The counts in the scenario table of docs/protocol.md."""
    rows = re.findall(r"^\| `([a-zA-Z0-9-]+)` \|.*\| ([\d,]+) \| complete \|$", PAGE.read_text(), re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


@pytest.mark.parametrize("name", SMALL_SCENARIOS)
def test_small_scenario_holds_in_every_reachable_state(name: str) -> None:
    """With every rule on, no state breaks an invariant, and the page counts the same states."""
    result = explore(Model(SCENARIOS[name]))
    assert result.violation is None, "\n".join(result.trace)
    assert result.complete
    assert result.num_states == documented_states()[name]


@pytest.mark.parametrize("name", SMALL_MISTAKES)
def test_mistake_has_a_counterexample(name: str) -> None:
    """Each rule is needed: without it the model shows how the protocol fails; with it, as many states hold."""
    mistake = MISTAKES[name]
    result = explore(Model(mistake.scenario, switches_of(name, mistake)), beginning=mistake.beginning)
    assert result.violation is not None
    assert result.trace
    if mistake.switches:
        return  # the scenario itself does the wrong thing
    without_it = explore(Model(mistake.scenario), max_states=result.num_states)
    assert without_it.violation is None, "\n".join(without_it.trace)


@pytest.mark.parametrize("name", SIDE_MODELS)
def test_side_model_ends_as_it_must(name: str) -> None:
    """Pools that lend to each other, terms and epochs: rules 17 and 18, each with what breaks it."""
    model = SIDE_MODELS[name]
    assert (model.run().violation is None) == model.must_hold


def test_counterexample_of_a_lost_holder_fence_is_two_computations_of_one_attempt() -> None:
    """The trace is a real run: one lost reply, and two workers decode one attempt."""
    mistake = MISTAKES["no_holder_fence"]
    result = explore(Model(mistake.scenario, switches_of("no_holder_fence", mistake)))
    assert result.violation is not None
    assert result.violation.startswith("I2")
    assert sum("reply lost" in label for label in result.trace) == 1


def test_exploration_that_is_cut_is_not_called_complete() -> None:
    """A limit must never look like a proof."""
    result = explore(Model(Scenario(num_requests=2, roles="PPDD", slow=1)), max_states=1)
    assert not result.complete
    assert result.violation is None


def test_command_line_fails_when_a_mistake_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch that no longer breaks anything means that the model has lost a check."""
    assert main(["naive", "finish_no_state", "--no-traces"]) == 0
    monkeypatch.setitem(MISTAKES, "no_such_switch", MISTAKES["finish_no_state"])
    assert main(["naive", "no_such_switch", "--no-traces"]) == 1


def test_page_names_every_scenario_and_every_mistake() -> None:
    """Rules, switches and scenarios on the page are those of the model."""
    text = PAGE.read_text()
    names = [*SCENARIOS, *MISTAKES, *SIDE_MODELS]
    assert [name for name in names if f"`{name}`" not in text] == []
