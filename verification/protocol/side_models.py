"""Two side models: pools of mixed workers that lend to each other (rule 17), and terms and epochs (rule 18)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from verification.protocol.state import replaced

Step = tuple[str, Any]
Successors = Callable[[Any], tuple[list[Step], str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideResult:
    num_states: int
    violation: str | None
    trace: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SideModel:
    """One exploration; `must_hold` says whether a violation is what is expected."""

    text: str
    must_hold: bool
    run: Callable[[], SideResult]


def breadth_first(initial: Hashable, successors: Successors) -> SideResult:
    """Every reachable state, or the shortest way to a violation."""
    reached: dict[Any, tuple[Any, str] | None] = {initial: None}
    order: list[Any] = [initial]
    for state in order:
        steps, violation = successors(state)
        if violation:
            trace = []
            at = state
            while (came := reached[at]) is not None:
                at, label = came
                trace.append(label)
            return SideResult(num_states=len(order), violation=violation, trace=tuple(trace[::-1]))
        for label, then in steps:
            if then not in reached:
                reached[then] = (state, label)
                order.append(then)
    return SideResult(num_states=len(order), violation=None, trace=())


class _Pool(NamedTuple):
    free: int
    lent: int
    running: int


def explore_pools(
    most_lent: int, *, pool_blocks: int = 4, request_blocks: int = 2, num_requests: int = 6
) -> SideResult:
    """Two mixed workers; each request needs blocks where it is prefilled and again where it is decoded, on the other one.

    `most_lent` is the number of blocks that a worker lends before it stops claiming.
    """
    size = request_blocks

    def successors(state: tuple[int, tuple[_Pool, ...]]) -> tuple[list[Step], str | None]:
        waiting, pools = state
        steps: list[Step] = []
        for here, pool in enumerate(pools):
            there = 1 - here
            lender = pools[there]
            if waiting and pool.free >= size and pool.lent + size <= most_lent:
                after = pool._replace(free=pool.free - size, lent=pool.lent + size)
                steps.append((f"w{here} prefills, hands over to w{there}", (waiting - 1, replaced(pools, here, after))))
            if lender.lent and pool.free >= size:
                pulled = replaced(pools, here, pool._replace(free=pool.free - size, running=pool.running + 1))
                given = lender._replace(free=lender.free + size, lent=lender.lent - size)
                steps.append((f"w{here} pulls from w{there}", (waiting, replaced(pulled, there, given))))
            if pool.running:
                after = pool._replace(free=pool.free + size, running=pool.running - 1)
                steps.append((f"w{here} finishes one", (waiting, replaced(pools, here, after))))
        is_done = not waiting and all(pool.lent == pool.running == 0 for pool in pools)
        if steps or is_done:
            return steps, None
        return steps, f"I4: deadlock, each waits for blocks that the other lends: {[tuple(pool) for pool in pools]}"

    empty = _Pool(pool_blocks, 0, 0)
    return breadth_first((num_requests, (empty, empty)), successors)


class _Roles(NamedTuple):
    """`lease` and `latest` are (leader, term); desired and actual are (role, epoch)."""

    lease: tuple[int, int] | None
    counter: int
    terms: tuple[int, ...]
    desired: tuple[str, int]
    actual: tuple[str, int]
    latest: tuple[int, int] | None
    snapshot: Any
    writes_left: int


def explore_roles(*, term_in_lease: bool, epoch_from_desired: bool, holder_checked: bool) -> SideResult:
    """Two balancers with terms, one worker with epochs, and a Redis that may forget once."""

    def successors(state: _Roles) -> tuple[list[Step], str | None]:
        steps: list[Step] = []
        if state.lease is not None:
            counter = 0 if term_in_lease else state.counter
            steps.append(("lease of the leader ends", state._replace(lease=None, counter=counter)))
        for leader in (0, 1):
            violation = _leader_steps(state, leader, steps)
            if violation:
                return steps, violation
        if state.desired[1] > state.actual[1]:
            steps.append((f"worker flips to {state.desired}", state._replace(actual=state.desired)))
        if state.snapshot is None:
            snapshot = (state.lease, state.counter, state.desired)
            steps.append(("(Redis: last fsync is here)", state._replace(snapshot=snapshot)))
        elif state.snapshot != "used":
            lease, counter, desired = state.snapshot
            latest = state.latest if lease is None else lease
            forgotten = state._replace(lease=lease, counter=counter, desired=desired, latest=latest, snapshot="used")
            steps.append(("!! Redis forgets", forgotten))
        return steps, None

    def _leader_steps(state: _Roles, leader: int, steps: list[Step]) -> str | None:
        term = state.terms[leader]
        if state.lease is None and state.counter < 3 and state.writes_left:
            new = state.counter + 1
            steps.append(
                (
                    f"B{leader} leads with term {new}",
                    state._replace(
                        lease=(leader, new),
                        counter=new,
                        terms=replaced(state.terms, leader, new),
                        latest=(leader, new),
                        writes_left=state.writes_left - 1,
                    ),
                )
            )
        lease = state.lease
        if not term or not state.writes_left or lease is None or lease[1] != term:
            return None
        if holder_checked and lease[0] != leader:
            return None
        if state.latest != (leader, term):
            return f"I5: role written by B{leader} term {term}, the leader is {state.latest}"
        epoch = (state.desired[1] if epoch_from_desired else max(state.desired[1], state.actual[1])) + 1
        role = "D" if state.actual[0] == "P" else "P"
        if epoch <= state.actual[1]:
            return f"I5: B{leader} writes {(role, epoch)}, the worker is at epoch {state.actual[1]}: never acted upon"
        decided = state._replace(desired=(role, epoch), writes_left=state.writes_left - 1)
        steps.append((f"B{leader} term {term} wants {role} at epoch {epoch}", decided))
        return None

    return breadth_first(_Roles(None, 0, (0, 0), ("P", 0), ("P", 0), None, None, 7), successors)


SIDE_MODELS = {
    "pools": SideModel(
        text="lent blocks bounded to pool - largest request", must_hold=True, run=lambda: explore_pools(2)
    ),
    "pools_unbounded": SideModel(text="lent blocks not bounded", must_hold=False, run=lambda: explore_pools(4)),
    "roles": SideModel(
        text="terms and epochs by rule 18",
        must_hold=True,
        run=lambda: explore_roles(term_in_lease=False, epoch_from_desired=False, holder_checked=True),
    ),
    "term_in_lease": SideModel(
        text="term kept inside the lease key, and only the term compared",
        must_hold=False,
        run=lambda: explore_roles(term_in_lease=True, epoch_from_desired=False, holder_checked=False),
    ),
    "term_without_nonce": SideModel(
        text="the script compares the term only, not the leader's nonce",
        must_hold=False,
        run=lambda: explore_roles(term_in_lease=False, epoch_from_desired=False, holder_checked=False),
    ),
    "epoch_from_desired": SideModel(
        text="next epoch = desired+1, not max(desired, actual)+1",
        must_hold=False,
        run=lambda: explore_roles(term_in_lease=False, epoch_from_desired=True, holder_checked=True),
    ),
}
"""Name -> side model; the names of those that must not hold are mistake switches of rules 17 and 18."""
