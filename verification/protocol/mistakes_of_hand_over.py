"""Mistakes in claims, hand-over, raises, leases of blocks, flips and the return after a loss."""

from verification.protocol.mistake import Mistake
from verification.protocol.model import Scenario

HAND_OVER_MISTAKES = {
    "prefix_before_raise": Mistake(
        rule=6,
        text="the owner takes the prefix before it stops accepting",
        scenario=Scenario(slow=1, num_tokens=3, roles="PDD"),
    ),
    "claim_without_heartbeat": Mistake(
        rule=12,
        text="the claim script does not ask for the claimant's own heartbeat",
        scenario=Scenario(slow=1, roles="PD", max_attempts=4),
    ),
    "register_late+no_gap_rule": Mistake(
        rule=6,
        text="the owner enters the request in its table after the reply of the script",
        scenario=Scenario(lost_reply=1, roles="PD"),
    ),
    "resubmit_attempt_1": Mistake(
        rule=2,
        text="a first record whose reply was lost is sent again as attempt 1 after a loss",
        scenario=Scenario(lost_reply=1, loss=1, roles="PDD", loss_writes=4),
    ),
    "drop_while_raising": Mistake(
        rule=6,
        text="frames that come while a raise is in flight are dropped, not held",
        scenario=Scenario(slow=1, roles="PD"),
    ),
    "cas_ignores_state": Mistake(
        rule=6, text="the raise compares the attempt only, not the state", scenario=Scenario(slow=1, roles="PD")
    ),
    "finished_is_final": Mistake(
        rule=2,
        text="FINISHED refuses the raise even if a frame before the last is lost",
        scenario=Scenario(loss=1, num_tokens=3, roles="PD", loss_writes=4),
    ),
    "apply_after_loss": Mistake(
        rule=2,
        text="after a loss the raise still answers FINISHED and the held frames are applied",
        scenario=Scenario(loss=1, roles="PPDD", loss_writes=2),
    ),
    "no_holder_fence": Mistake(
        rule=1,
        text="claim, hand-over, admit and finish compare the attempt only",
        scenario=Scenario(lost_reply=1, num_tokens=3, roles="PDD"),
    ),
    "publish_twice": Mistake(
        rule=1,
        text="a raise whose reply was lost is sent again and publishes again (holder fence on)",
        scenario=Scenario(slow=1, lost_reply=1, roles="PPD"),
        harmless=True,
    ),
    "publish_twice+no_holder_fence": Mistake(
        rule=1,
        text="the same without the holder fence",
        scenario=Scenario(slow=1, lost_reply=1, num_tokens=3, roles="PPDD"),
        beginning=(
            "records r0",
            "w0: claims",
            "heartbeat of w0 ends though",
            "holder w0",
            "heartbeat visible",
            "prefix ())  !! executed, reply lost",
            "raises r0 to attempt 2",
            "reply: r0",
            "w0: claims r0 attempt 2",
            "w1: claims r0 attempt 2",
            "w0: prefills r0 attempt 2",
            "w1: prefills r0 attempt 2",
        ),
    ),
    "no_own_pending": Mistake(
        rule=4,
        text="a worker reads only new entries after a lost reply",
        scenario=Scenario(lost_reply=1, roles="PD"),
    ),
    "finish_no_state": Mistake(
        rule=3, text="the finish transaction does not write the state", scenario=Scenario(roles="PD")
    ),
    "finish_two_steps": Mistake(
        rule=3, text="last frame first, record and entry later", scenario=Scenario(crash=1, roles="PDD")
    ),
    "hand_over_two_steps": Mistake(
        rule=6,
        text="the first token is published before the hand-over is recorded",
        scenario=Scenario(slow=1, roles="PPD"),
        harmless=True,
    ),
    "always_hand_over": Mistake(
        rule=7, text="hand-over even if the first token is the last one", scenario=Scenario(slow=1, roles="PD")
    ),
    "held_survive": Mistake(
        rule=6,
        text="held frames of the old attempt survive the raise",
        scenario=Scenario(slow=1, num_tokens=3, roles="PD"),
    ),
    "no_attempt_fence": Mistake(
        rule=6, text="the owner checks the offset only", scenario=Scenario(slow=1, num_tokens=3, roles="PD")
    ),
    "check_before_copy": Mistake(
        rule=11,
        text="generations are checked before the copy only",
        scenario=Scenario(roles="PD", slow=2, num_blocks=1),
    ),
    "in_place": Mistake(
        rule=11,
        text="decode in place on a peer's block, lease released at DECODING",
        scenario=Scenario(roles="PD", num_requests=2, num_blocks=1),
    ),
    "in_place_kept": Mistake(
        rule=11,
        text="the same, lease kept to the end, but the generation is not read again at each step",
        scenario=Scenario(roles="PD", num_requests=2, num_blocks=1, slow=1),
    ),
    "in_place_checked": Mistake(
        rule=11,
        text="in place, lease kept, generation read again after each step before the token leaves",
        scenario=Scenario(roles="PD", num_requests=2, num_blocks=1, slow=1),
        harmless=True,
    ),
    "local_release": Mistake(
        rule=11,
        text="a local (mixed) job releases the lease of the block that it decodes on",
        scenario=Scenario(roles="M"),
    ),
    "silent_pull_failure": Mistake(
        rule=10,
        text="a failed pull drops the entry and tells nobody",
        scenario=Scenario(roles="PD", num_requests=2, slow=1, num_blocks=1),
    ),
    "lease_by_timer": Mistake(
        rule=11,
        text="a lease ends by time, also for entries not yet pulled",
        scenario=Scenario(roles="PD", num_requests=2, num_tokens=3, num_blocks=1, max_attempts=2),
    ),
    "attempt_from_record": Mistake(
        rule=2,
        text="after a forgetful Redis the next attempt is record+1, not highest used+1",
        scenario=Scenario(loss=1, slow=1, num_tokens=3, roles="PDD", loss_writes=9),
        beginning=(
            "records r0",
            "w0: claims",
            "heartbeat of w0 ends though",
            "last fsync",
            "holder w0",
            "heartbeat visible",
            "raises r0 to attempt 2",
            "reply: r0",
            "w0: claims r0 attempt 2",
            "prefills r0 attempt 2",
            "hands r0 attempt 2 over to w1",
            "w1: reads",
            "first half",
            "second half",
            "DECODING",
            "Redis forgets",
        ),
    ),
    "keep_cursor": Mistake(
        rule=2,
        text="the owner keeps its cursor on tokens:ROUTER after a forgetful Redis",
        scenario=Scenario(loss=1, roles="PD", loss_writes=4),
    ),
    "read_before_freeze": Mistake(
        rule=2,
        text="frames are read from the new connection before the freeze",
        scenario=Scenario(loss=1, num_tokens=3, roles="PDD", loss_writes=4),
    ),
    "no_resync": Mistake(
        rule=2,
        text="only unfinished requests are published again; ended ones are not finalised again",
        scenario=Scenario(loss=1, roles="PD", loss_writes=4),
    ),
    "no_janitor": Mistake(
        rule=14,
        text="nobody deletes stale pending entries of a dead worker",
        scenario=Scenario(crash=1, roles="PPD"),
    ),
    "no_orphan_sweep": Mistake(
        rule=13,
        text="nobody is named to cancel a dead owner's requests",
        scenario=Scenario(owner_crash=1, crash=1, roles="PPD"),
    ),
    "cancel_hint_only": Mistake(
        rule=16,
        text="a cancel is only sent to the holder, not recorded",
        scenario=Scenario(cancel=1, crash=1, roles="PPD"),
    ),
    "no_gap_rule": Mistake(
        rule=15,
        text="a gap in tokens:ROUTER (MAXLEN, loss) triggers nothing",
        scenario=Scenario(trim=1, roles="PD"),
    ),
    "flip_check_then_act": Mistake(
        rule=8,
        text="drain is checked and the epoch raised in two steps; the hand-over does not ask for accepting",
        scenario=Scenario(flip=1, roles="PDD"),
    ),
    "migrate_refused_goes_on": Mistake(
        rule=9,
        text="a refused (already executed) migration goes on decoding here",
        scenario=Scenario(flip=1, lost_reply=1, num_tokens=3, roles="PDD"),
    ),
    "restart_same_name": Mistake(
        rule=5,
        text="a worker restarts within the TTL under the same name, not reading its pending list",
        scenario=Scenario(crash=1, restart=1, roles="PPDD"),
        switches=frozenset({"no_own_pending"}),
    ),
}
