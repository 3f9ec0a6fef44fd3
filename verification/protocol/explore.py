"""Breadth-first exploration: every reachable state, shortest counterexamples, and AG EF of a good end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from verification.protocol.checks import check_always, faults_of_quiet
from verification.protocol.model import Model
from verification.protocol.state import State, Violation
from verification.protocol.successors import normalised, successors

CHECK_LIMITS_EVERY = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an exploration found. `violation` is None when every invariant held in every state reached."""

    num_states: int
    num_transitions: int
    num_quiet: int
    violation: str | None
    trace: tuple[str, ...]
    complete: bool
    cpu_s: float


class _Graph:
    """The states found so far, how each was reached, and the fault-free transitions backwards."""

    def __init__(self, initial: State) -> None:
        self.ids = {initial: 0}
        self.order = [initial]
        self.parents: list[tuple[int, str] | None] = [None]
        self.before: list[list[int]] = [[]]
        self.num_transitions = 0

    def add(self, state: State, parent: int, label: str) -> int | None:
        """Index of a state not seen before; None for a known one."""
        index = len(self.order)
        if self.ids.setdefault(state, index) != index:
            return None
        self.order.append(state)
        self.parents.append((parent, label))
        self.before.append([])
        return index

    def trace(self, index: int) -> list[str]:
        labels = []
        while (parent := self.parents[index]) is not None:
            index, label = parent
            labels.append(label)
        return labels[::-1]

    def first_without_good_end(self, quiet: list[int]) -> int | None:
        """AG EF: the first state from which no fault-free way leads to a good quiet state."""
        good = bytearray(len(self.order))
        for index in quiet:
            good[index] = 1
        todo = list(quiet)
        while todo:
            for index in self.before[todo.pop()]:
                if not good[index]:
                    good[index] = 1
                    todo.append(index)
        first = good.find(0)
        return None if first < 0 else first


def explore(
    model: Model, *, max_states: int = 2_000_000, limit_s: float = 100.0, beginning: Sequence[str] = ()
) -> Result:
    """Explore from the initial state, or from the end of a given beginning (a list of parts of labels).

    `limit_s` is CPU time, so that a busy machine does not change what is covered.
    """
    started_s = time.process_time()
    initial, path = model.initial(), []
    for wanted in beginning:
        label, _, initial = next(step for step in successors(model, initial) if wanted in step[0])
        path.append(label)
        initial = normalised(model, initial)
    graph = _Graph(initial)
    violation, where, quiet, complete = _search(model, graph, max_states, started_s + limit_s)
    if violation is None and complete:
        where = graph.first_without_good_end(quiet)
        if where is not None:
            violation = "I4: no fault-free way to a good end from here (livelock)"
    return Result(
        num_states=len(graph.order),
        num_transitions=graph.num_transitions,
        num_quiet=len(quiet),
        violation=violation,
        trace=() if where is None else tuple(path + graph.trace(where)),
        complete=complete,
        cpu_s=time.process_time() - started_s,
    )


def _search(
    model: Model, graph: _Graph, max_states: int, deadline_s: float
) -> tuple[str | None, int | None, list[int], bool]:
    """(violation, index of its state, good quiet states, was everything explored)."""
    quiet: list[int] = []
    index = 0
    while index < len(graph.order):
        state = graph.order[index]
        try:
            is_quiet = _expand(model, graph, index, state)
        except Violation as violation:
            return str(violation), index, quiet, True
        except _BadSuccessor as bad:
            return bad.reason, bad.index, quiet, True
        if is_quiet:
            faults = faults_of_quiet(model, state)
            if faults:
                return "I4: quiescent, but " + "; ".join(faults[:3]), index, quiet, True
            quiet.append(index)
        index += 1
        if index % CHECK_LIMITS_EVERY == 0 and (len(graph.order) > max_states or time.process_time() > deadline_s):
            return None, None, quiet, False
    return None, None, quiet, True


class _BadSuccessor(Exception):
    """An invariant does not hold in a state just found."""

    def __init__(self, reason: str, index: int) -> None:
        super().__init__(reason)
        self.reason, self.index = reason, index


def _expand(model: Model, graph: _Graph, index: int, state: State) -> bool:
    """Add all successors of one state; True if nothing can happen in it without a fault."""
    is_quiet = True
    for label, is_fault, then in successors(model, state):
        then = normalised(model, then)
        if then == state:
            continue
        graph.num_transitions += 1
        is_quiet = is_quiet and is_fault
        found = graph.add(then, index, label)
        if found is not None:
            try:
                check_always(model, then)
            except Violation as violation:
                raise _BadSuccessor(str(violation), found) from violation
        if not is_fault:
            graph.before[graph.ids[then]].append(index)
    return is_quiet
