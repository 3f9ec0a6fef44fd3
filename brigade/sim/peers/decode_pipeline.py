"""A decode instance of the peer whose model is cut into stages: several groups of requests are under way at once.

Each stage takes its queue, first come first served within the 50,000 tokens, as one step. Requests that leave the last stage
have one token more; those that need others return to the first stage, behind what came meanwhile. Groups are kept together, so
a step costs about the same for any number of requests, unless groups merge or the budget splits them.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from brigade.core.errors import ConfigError
from brigade.sim.peers.a100_fit import A100Fit, host_ms
from brigade.sim.peers.decode_walk import STEP_BUDGET_TOKENS
from brigade.sim.peers.workload import PeerWorkload


class Group:
    """Requests that move together. `order` is first come first served and may hold requests that finished."""

    __slots__ = ("finishes", "num_context_tokens", "order", "rounds", "size")

    def __init__(self) -> None:
        self.order: list[int] = []
        self.size = 0
        self.num_context_tokens = 0
        # Rounds through the pipeline so far, and (round at which it finishes, request).
        self.rounds = 0
        self.finishes: list[tuple[int, int]] = []


class DecodePipeline:
    """Requests join ahead of time or at the present; `finished_ms` is filled in, one entry per request of the workload."""

    def __init__(self, fit: A100Fit, workload: PeerWorkload, finished_ms: list[float]) -> None:
        self._fit = fit
        self._workload = workload
        self._finished_ms = finished_ms
        self._queues: list[list[Group]] = [[] for _ in range(fit.pp)]
        self._running: list[Group | None] = [None] * fit.pp
        self._ends_ms = [inf] * fit.pp
        self._lines: dict[int, tuple[float, float]] = {}
        self._now_ms = 0.0

    @property
    def num_queued(self) -> int:
        """Requests that wait for the first stage; correct after `advance` to the present."""
        return sum(group.size for group in self._queues[0])

    def join(self, now_ms: float, requests: list[int]) -> None:
        """Queue requests; `advance(now_ms)` came before."""
        self._now_ms = now_ms
        self._queues[0].append(self._group(requests))

    def advance(self, until_ms: float) -> None:
        """Start every step that starts before `until_ms`."""
        ends_ms, running = self._ends_ms, self._running
        if running[0] is None and self._queues[0] and self._now_ms < until_ms:
            self._start(0, self._now_ms)
        while True:
            end_ms = min(ends_ms)
            if end_ms >= until_ms:
                return
            stage = ends_ms.index(end_ms)
            group = running[stage]
            assert group is not None
            running[stage] = None
            ends_ms[stage] = inf
            following = stage + 1
            if following == len(ends_ms):
                following = 0
                self._finish_round(group, end_ms)
            if group.size:
                self._queues[following].append(group)
            if self._queues[stage]:
                self._start(stage, end_ms)
            if running[following] is None and self._queues[following]:
                self._start(following, end_ms)

    def _start(self, stage: int, now_ms: float) -> None:
        queue = self._queues[stage]
        group = queue.pop() if len(queue) == 1 else self._merged(queue)
        if group.num_context_tokens + group.size > STEP_BUDGET_TOKENS or group.size > self._fit.capacity_tokens:
            group, rest = self._split(group)
            queue.append(rest)
        size, num_tokens = group.size, group.num_context_tokens
        line = self._lines.get(size)
        if line is None:
            line = self._lines[size] = self._fit.decode_line(size)
        step_ms = line[0] + line[1] * num_tokens
        if stage == 0:
            step_ms += host_ms(num_tokens)
        self._running[stage] = group
        self._ends_ms[stage] = now_ms + step_ms

    def _finish_round(self, group: Group, now_ms: float) -> None:
        group.rounds += 1
        group.num_context_tokens += group.size
        finishes = group.finishes
        while finishes and finishes[0][0] == group.rounds:
            request = heappop(finishes)[1]
            self._finished_ms[request] = now_ms
            group.size -= 1
            group.num_context_tokens -= self._workload.input_tokens[request] + self._workload.output_tokens[request]

    def _group(self, requests: list[int]) -> Group:
        group = Group()
        group.order = list(requests)
        group.size = len(requests)
        for request in requests:
            input_tokens, output_tokens = self._workload.input_tokens[request], self._workload.output_tokens[request]
            if input_tokens + output_tokens > STEP_BUDGET_TOKENS:
                raise ConfigError(f"request {request} grows beyond the {STEP_BUDGET_TOKENS} tokens of a decode step")
            group.num_context_tokens += input_tokens
            group.finishes.append((output_tokens, request))
        heapify(group.finishes)
        return group

    def _merged(self, groups: list[Group]) -> Group:
        """Empty the queue and return its requests as one group: the largest, with the others' rounds put to its own."""
        largest = max(groups, key=lambda group: group.size)
        order: list[int] = []
        for group in groups:
            order += group.order
            if group is largest:
                continue
            later = largest.rounds - group.rounds
            for finish, request in group.finishes:
                heappush(largest.finishes, (finish + later, request))
            largest.size += group.size
            largest.num_context_tokens += group.num_context_tokens
        groups.clear()
        largest.order = order
        if len(order) > 2 * largest.size + 64:
            unfinished = {request for _, request in largest.finishes}
            largest.order = [request for request in order if request in unfinished]
        return largest

    def _split(self, group: Group) -> tuple[Group, Group]:
        """Return the head that one step takes, and the rest."""
        input_tokens, output_tokens = self._workload.input_tokens, self._workload.output_tokens
        finish_round = {request: finish for finish, request in group.finishes}
        head, rest = Group(), Group()
        head.rounds = rest.rounds = group.rounds
        room = STEP_BUDGET_TOKENS
        part = head
        for request in group.order:
            finish = finish_round.get(request)
            if finish is None:
                continue
            context = input_tokens[request] + output_tokens[request] - (finish - group.rounds)
            if part is head and (context + 1 > room or head.size == self._fit.capacity_tokens):
                part = rest
            room -= context + 1
            part.order.append(request)
            part.size += 1
            part.num_context_tokens += context
            part.finishes.append((finish, request))
        heapify(head.finishes)
        heapify(rest.finishes)
        return head, rest
