"""Mistakes in the ends of a request: frames of several requests, limits, stop strings, cancels, leases, outages, expiry."""

from verification.protocol.mistake import Mistake
from verification.protocol.model import Scenario

END_MISTAKES = {
    "pull_failure_not_recorded": Mistake(
        rule=10,
        text="a failed pull is only a frame; the record still names the worker as holder",
        scenario=Scenario(crash=1, trim=1, roles="PPD"),
    ),
    "unanswered_migration_goes_on": Mistake(
        rule=9,
        text="a migration that got no answer is taken for one that was not executed",
        scenario=Scenario(roles="PDD", flip=1, late=1, num_tokens=3),
    ),
    "one_refused_refuses_all": Mistake(
        rule=19,
        text="the script refuses a whole frame because one part of it is refused",
        scenario=Scenario(roles="PD", num_requests=2, batched=True, cancel=1),
    ),
    "refused_part_published": Mistake(
        rule=19,
        text="the refused parts of a frame are published with the rest",
        scenario=Scenario(roles="PD", num_requests=2, num_tokens=3, batched=True, cancel=1),
        harmless=True,
    ),
    "no_attempt_limit": Mistake(
        rule=21, text="attempts have no limit", scenario=Scenario(roles="PD", slow=2, attempt_limit=2, max_attempts=2)
    ),
    "fail_without_record": Mistake(
        rule=21,
        text="the limit ends the client's answer, but the record does not say FAILED",
        scenario=Scenario(roles="PPD", crash=1, attempt_limit=1),
    ),
    "stop_at_own_attempt": Mistake(
        rule=22,
        text="the conclusion compares the attempt that the owner has confirmed",
        scenario=Scenario(roles="PPD", stop=1, slow=1, lost_reply=1, crash=1),
    ),
    "stop_without_record": Mistake(
        rule=22,
        text="a stop string only ends the answer and hints to the holder",
        scenario=Scenario(roles="PDD", stop=1, crash=1),
    ),
    "stop_keeps_attempt": Mistake(
        rule=22,
        text="the conclusion takes no attempt of its own: a raise executed late reopens it",
        scenario=Scenario(roles="PPD", stop=1, late=1, crash=1, trim=1),
    ),
    "cancel_leaves_finished": Mistake(
        rule=22,
        text="a cancel leaves a FINISHED record as it is: a raise executed late reopens it",
        scenario=Scenario(roles="PPD", cancel=1, late=1, crash=1, trim=1),
    ),
    "cancel_without_tombstone": Mistake(
        rule=22,
        text="a cancel of a missing record writes nothing: its first script is executed later",
        scenario=Scenario(roles="PPD", cancel=1, late=1, crash=1),
    ),
    "goes_on_after_drain": Mistake(
        rule=23,
        text="an owner whose id was struck off goes on under it",
        scenario=Scenario(roles="PD", leases=True, owner_slow=1, owner_crash=1),
    ),
    "drain_in_two_steps": Mistake(
        rule=23,
        text="the janitor cancels first and strikes the id off later",
        scenario=Scenario(roles="PPD", leases=True, owner_slow=1, crash=1),
    ),
    "late_ignores_router_id": Mistake(
        rule=23,
        text="the owner's scripts do not ask whether its id is still listed",
        scenario=Scenario(roles="PPD", leases=True, owner_crash=1, late=1, crash=1),
    ),
    "janitor_acts_at_once": Mistake(
        rule=24,
        text="the janitor takes heartbeats that vanished with Redis for deaths",
        scenario=Scenario(roles="PD", leases=True, outage=1),
    ),
    "owner_acts_at_once": Mistake(
        rule=24,
        text="the owner takes heartbeats that vanished with Redis for deaths",
        scenario=Scenario(roles="PD", leases=True, outage=1, max_attempts=1),
    ),
    "lender_acts_at_once": Mistake(
        rule=24,
        text="the lender takes heartbeats that vanished with Redis for deaths",
        scenario=Scenario(roles="PD", leases=True, outage=1, max_attempts=1, num_requests=2, num_blocks=1),
    ),
    "owner_absent_is_refusal": Mistake(
        rule=25,
        text="a script that does not see the owner answers refused, and the worker deletes its entry",
        scenario=Scenario(roles="PD", leases=True, outage=1),
    ),
    "answer_ends_with_first_branch": Mistake(
        rule=26,
        text="the client's answer ends when its first branch ends",
        scenario=Scenario(roles="PD", num_requests=2, branches=True),
    ),
    "cancel_first_branch_only": Mistake(
        rule=26,
        text="the disconnect cancels one branch",
        scenario=Scenario(roles="PPD", num_requests=2, branches=True, cancel=1, crash=1),
    ),
    "failed_branch_leaves_siblings": Mistake(
        rule=26,
        text="a branch that fails ends the answer, its siblings are forgotten",
        scenario=Scenario(roles="PPD", num_requests=2, branches=True, attempt_limit=1, crash=1),
    ),
    "expired_is_not_finished": Mistake(
        rule=27,
        text="a record that has expired is not taken for a finished one by the gap rule",
        scenario=Scenario(roles="PD", expiry=True, trim=1),
    ),
    "resend_as_attempt_1": Mistake(
        rule=27,
        text="a first record whose reply was lost is sent again as attempt 1 after the record has expired",
        scenario=Scenario(roles="PPD", expiry=True, lost_reply=1, crash=1),
    ),
}
