"""Which waiting prefills a worker claims."""

from __future__ import annotations

from typing import Any

from brigade.core.messages import PrefillJob, WaitingJob
from brigade.policies.batching import PrefillView, choose_prefills, max_in_flight_blocks


def waiting(
    name: str, *, cls: str = "standard", priority: int = 0, arrival_s: float = 0.0, tokens: int = 16
) -> WaitingJob:
    job = PrefillJob(
        request_id=name,
        attempt=1,
        priority_class=cls,
        priority=priority,
        num_prompt_tokens=tokens,
        num_prefix_tokens=0,
        max_tokens=32,
        arrival_s=arrival_s,
    )
    return WaitingJob(stream="q", entry_id=name, job=job)


def view(*jobs: WaitingJob, **changes: Any) -> PrefillView:
    values: dict[str, Any] = {
        "waiting": jobs,
        "budget_tokens": 1000,
        "num_blocks": 64,
        "block_size_tokens": 16,
        "num_available_blocks": 64,
        "num_in_flight_blocks": 0,
        "max_in_flight_blocks": 64,
    }
    return PrefillView(**{**values, **changes})


def names(jobs: tuple[WaitingJob, ...]) -> list[str]:
    return [job.job.request_id for job in jobs]


def test_order_is_class_then_priority_then_arrival() -> None:
    """Priority follows vLLM's polarity: lower first; an unknown class comes last instead of failing."""
    jobs = (
        waiting("unknown", cls="gold"),
        waiting("late", arrival_s=2),
        waiting("early", arrival_s=1),
        waiting("urgent", priority=-1, arrival_s=3),
        waiting("interactive", cls="interactive", arrival_s=9),
    )
    choice = choose_prefills(view(*jobs))
    assert names(choice.chosen) == ["interactive", "urgent", "early", "late", "unknown"]
    assert choice.reason == "nothing else waits"


def test_budget_ends_the_choice_and_only_its_last_job_exceeds_it() -> None:
    """What one worker does not compute soon is left to others; a long prompt is chunked, so it may exceed the budget."""
    jobs = [waiting("a", tokens=60, arrival_s=1), waiting("b", tokens=60, arrival_s=2), waiting("c", arrival_s=3)]
    choice = choose_prefills(view(*jobs, budget_tokens=100))
    assert names(choice.chosen) == ["a", "b"]
    assert choice.reason == "token budget used up"


def test_nothing_overtakes_a_job_without_room() -> None:
    """Small jobs that slip past would keep a large one waiting for ever."""
    jobs = [waiting("large", tokens=160, arrival_s=1), waiting("small", arrival_s=2)]
    choice = choose_prefills(view(*jobs, num_available_blocks=9))
    assert choice.chosen == ()
    assert choice.reason == "10 blocks needed, 9 of 64 available"


def test_in_flight_kv_is_bounded_but_never_stops_the_only_job() -> None:
    """Rule 17; a bound below one request's size must not stop everything."""
    jobs = [waiting("a", tokens=320, arrival_s=1), waiting("b", arrival_s=2)]
    assert names(choose_prefills(view(*jobs, max_in_flight_blocks=10)).chosen) == ["a"]
    assert choose_prefills(view(*jobs, max_in_flight_blocks=10, num_in_flight_blocks=1)).chosen == ()


def test_answers_are_reserved_where_the_prefill_is_decoded() -> None:
    """A worker that decodes too claims only what it can carry to the end."""
    assert names(choose_prefills(view(waiting("a"), num_available_blocks=2)).chosen) == ["a"]
    assert choose_prefills(view(waiting("a"), num_available_blocks=2, reserves_answers=True)).chosen == ()


def test_too_large_a_job_is_left_to_a_larger_pool_or_refused_by_its_claimant() -> None:
    """It must neither block the queue nor lie in it for ever."""
    jobs = [waiting("huge", tokens=2000, arrival_s=1), waiting("small", arrival_s=2)]
    assert names(choose_prefills(view(*jobs, max_pool_tokens=4096)).chosen) == ["small"]
    assert names(choose_prefills(view(*jobs, max_pool_tokens=1024)).chosen) == ["huge", "small"]


def test_in_flight_bound_leaves_room_for_the_largest_request() -> None:
    assert max_in_flight_blocks(100, 30) == 70
    assert max_in_flight_blocks(100, 90) == 50
