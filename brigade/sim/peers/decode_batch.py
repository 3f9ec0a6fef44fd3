"""Decode steps of one worker of the peer (one stage), first come first served, with runs of like steps in closed form.

A step takes requests from the head of the queue while their contexts, each with its new token, stay within 50,000 tokens, a
constant of the peer; those that need more tokens then return to the tail. While all fit, step times form an arithmetic series,
so a run up to the next finish, the next event or the edge of the budget costs one evaluation. Above it every step is walked.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import ceil, sqrt

from brigade.core.errors import ConfigError
from brigade.sim.peers.a100_fit import HOST_STEP_MS, HOST_TOKEN_MS, A100Fit, host_ms
from brigade.sim.peers.decode_walk import STEP_BUDGET_TOKENS, Walk
from brigade.sim.peers.workload import PeerWorkload


class DecodeBatch:
    """The requests of one worker that decode. `finished_ms` is filled in, one entry per request of the workload."""

    def __init__(self, fit: A100Fit, workload: PeerWorkload, finished_ms: list[float]) -> None:
        self._input_tokens = workload.input_tokens
        self._output_tokens = workload.output_tokens
        self._finished_ms = finished_ms
        self._fit = fit
        self._lines: dict[int, tuple[float, float]] = {}
        self.size = 0
        self.num_context_tokens = 0
        # Requests left in the queue by the step that ran last.
        self.num_left_over = 0
        # While all fit: steps so far, (step at which it finishes, request) and the queue, reversed so that its head is the end
        # of the list. Finished requests stay in the queue until it is next read.
        self._step = 0
        self._finishes: list[tuple[int, int]] = []
        self._finish_step: dict[int, int] = {}
        self._reversed_queue: list[int] = []
        self._walk: Walk | None = None

    def join_ahead(self, requests: list[int]) -> None:
        """Put requests in the queue before those of the last step, which return behind what came while it ran."""
        self._count_in(requests)
        if self._walk is None:
            self._reversed_queue.extend(reversed(requests))
        else:
            self._walk.append(requests, [self._output_tokens[request] for request in requests])

    def join_behind(self, requests: list[int]) -> None:
        """Put requests in the queue behind all others."""
        if self._walk is not None:
            self._walk.return_to_tail()
            self.join_ahead(requests)
            return
        self._count_in(requests)
        self._reversed_queue = [*reversed(requests), *self._reversed_queue]

    def _count_in(self, requests: list[int]) -> None:
        for request in requests:
            context, output_tokens = self._input_tokens[request], self._output_tokens[request]
            if context + output_tokens > STEP_BUDGET_TOKENS:
                raise ConfigError(f"request {request} grows beyond the {STEP_BUDGET_TOKENS} tokens of a decode step")
            self.num_context_tokens += context
            if self._walk is None:
                finish = self._step + output_tokens
                self._finish_step[request] = finish
                heappush(self._finishes, (finish, request))
        self.size += len(requests)

    def advance(self, now_ms: float, until_ms: float) -> float:
        """Decode from `now_ms` and return the first step boundary at or after `until_ms`, or when the batch ran empty."""
        while self.size and now_ms < until_ms:
            size, context = self.size, self.num_context_tokens
            if context + size > STEP_BUDGET_TOKENS or size > self._fit.capacity_tokens:
                now_ms = self._step_over_budget(now_ms)
                continue
            if self._walk is not None:
                self._stop_walking(self._walk)
            self.num_left_over = 0
            line = self._lines.get(size)
            if line is None:
                base, slope = self._fit.decode_line(size)
                line = self._lines[size] = (base + HOST_STEP_MS, slope + HOST_TOKEN_MS)
            base, slope = line
            finishes = self._finishes
            to_finish = finishes[0][0] - self._step
            num_steps = min(to_finish, (STEP_BUDGET_TOKENS - context) // size)
            # n steps take n * first + n^2 * half.
            half = slope * size / 2
            first = base + slope * context - half
            left_ms = until_ms - now_ms
            run_ms = num_steps * (first + num_steps * half)
            if run_ms > left_ms:
                num_steps = max(1, ceil(2 * left_ms / (first + sqrt(first * first + 4 * half * left_ms))))
                run_ms = num_steps * (first + num_steps * half)
            now_ms += run_ms
            self._step += num_steps
            context += num_steps * size
            if num_steps == to_finish:
                step, finish_step = self._step, self._finish_step
                while finishes and finishes[0][0] == step:
                    request = heappop(finishes)[1]
                    del finish_step[request]
                    self._finished_ms[request] = now_ms
                    context -= self._input_tokens[request] + self._output_tokens[request]
                    size -= 1
                self.size = size
                if len(self._reversed_queue) > 2 * size + 64:
                    self._reversed_queue = [request for request in self._reversed_queue if request in finish_step]
            self.num_context_tokens = context
        return now_ms

    def _step_over_budget(self, now_ms: float) -> float:
        """Run one step of the head of the queue only, and return its end."""
        walk = self._walk
        if walk is None:
            walk = self._walk = self._start_walking()
        batch, num_tokens, finished = walk.step(self._fit.capacity_tokens)
        base, slope = self._fit.decode_line(batch)
        now_ms += base + slope * num_tokens + host_ms(num_tokens)
        self.num_left_over = self.size - batch
        self.num_context_tokens += batch
        self.size -= len(finished)
        for request in finished:
            self._finished_ms[request] = now_ms
            self.num_context_tokens -= self._input_tokens[request] + self._output_tokens[request]
        return now_ms

    def _start_walking(self) -> Walk:
        finish_step, step = self._finish_step, self._step
        queue = [request for request in reversed(self._reversed_queue) if request in finish_step]
        walk = Walk(self._input_tokens, self._output_tokens)
        walk.append(queue, [finish_step[request] - step for request in queue])
        self._finishes.clear()
        finish_step.clear()
        self._reversed_queue.clear()
        return walk

    def _stop_walking(self, walk: Walk) -> None:
        queue = walk.queue()
        self._finish_step = {request: self._step + num_left for request, num_left in queue}
        self._finishes = [(finish, request) for request, finish in self._finish_step.items()]
        heapify(self._finishes)
        self._reversed_queue = [request for request, _ in reversed(queue)]
        self._walk = None
