"""Decode steps of one worker of the peer (one stage), first come first served, with runs of like steps in closed form.

A step takes requests from the head of the queue while their contexts, each with its new token, stay within 50,000 tokens, a
constant of the peer; those that need more tokens then return to the tail. While all fit, step times form an arithmetic series,
so a run up to the next finish, the next event or the edge of the budget costs one evaluation. Above it every step is walked.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import ceil, sqrt

from brigade.core.errors import ConfigError
from brigade.sim.peers.a100_fit import HOST_STEP_MS, HOST_TOKEN_MS, A100Fit, host_ms
from brigade.sim.peers.workload import PeerWorkload

STEP_BUDGET_TOKENS = 50_000


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
        # While steps are walked: the queue, those of the last step, which join its tail, and the tokens of each.
        self._walked: deque[int] | None = None
        self._returning: list[int] = []
        self._contexts: dict[int, int] = {}
        self._left: dict[int, int] = {}

    def join_ahead(self, requests: list[int]) -> None:
        """Put requests in the queue before those of the last step, which return behind what came while it ran."""
        if self._walked is None:
            self._reversed_queue.extend(reversed(requests))
        else:
            self._walked.extend(requests)
        self._count_in(requests)

    def join_behind(self, requests: list[int]) -> None:
        """Put requests in the queue behind all others."""
        if self._walked is None:
            self._reversed_queue = [*reversed(requests), *self._reversed_queue]
        else:
            self._walked.extend(self._returning)
            self._walked.extend(requests)
            self._returning = []
        self._count_in(requests)

    def _count_in(self, requests: list[int]) -> None:
        for request in requests:
            context, output_tokens = self._input_tokens[request], self._output_tokens[request]
            if context + output_tokens > STEP_BUDGET_TOKENS:
                raise ConfigError(f"request {request} grows beyond the {STEP_BUDGET_TOKENS} tokens of a decode step")
            self.num_context_tokens += context
            if self._walked is None:
                finish = self._step + output_tokens
                self._finish_step[request] = finish
                heappush(self._finishes, (finish, request))
            else:
                self._contexts[request] = context
                self._left[request] = output_tokens
        self.size += len(requests)

    def advance(self, now_ms: float, until_ms: float) -> float:
        """Decode from `now_ms` and return the first step boundary at or after `until_ms`, or when the batch ran empty."""
        while self.size and now_ms < until_ms:
            size, context = self.size, self.num_context_tokens
            if context + size > STEP_BUDGET_TOKENS or size > self._fit.capacity_tokens:
                now_ms = self._step_over_budget(now_ms)
                continue
            if self._walked is not None:
                self._stop_walking(self._walked)
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
        queue = self._walked
        if queue is None:
            queue = self._start_walking()
        queue.extend(self._returning)
        contexts, left = self._contexts, self._left
        room = STEP_BUDGET_TOKENS
        taken = []
        for _ in range(min(len(queue), self._fit.capacity_tokens)):
            need = contexts[queue[0]] + 1
            if need > room:
                break
            room -= need
            taken.append(queue.popleft())
        self.num_left_over = len(queue)
        batch = len(taken)
        base, slope = self._fit.decode_line(batch)
        num_tokens = STEP_BUDGET_TOKENS - room - batch
        now_ms += base + slope * num_tokens + host_ms(num_tokens)
        survivors = []
        for request in taken:
            left[request] -= 1
            if left[request]:
                contexts[request] += 1
                survivors.append(request)
            else:
                self._finished_ms[request] = now_ms
                self.num_context_tokens -= contexts.pop(request)
                del left[request]
        self.num_context_tokens += len(survivors)
        self.size -= batch - len(survivors)
        self._returning = survivors
        return now_ms

    def _start_walking(self) -> deque[int]:
        """Turn from finish steps to tokens left per request, for steps that do not take all."""
        finish_step = self._finish_step
        queue = deque(request for request in reversed(self._reversed_queue) if request in finish_step)
        for request in queue:
            self._left[request] = finish_step[request] - self._step
            self._contexts[request] = self._input_tokens[request] + self._output_tokens[request] - self._left[request]
        self._finishes.clear()
        finish_step.clear()
        self._reversed_queue.clear()
        self._walked = queue
        return queue

    def _stop_walking(self, queue: deque[int]) -> None:
        queue.extend(self._returning)
        self._finish_step = {request: self._step + self._left[request] for request in queue}
        self._finishes = [(finish, request) for request, finish in self._finish_step.items()]
        heapify(self._finishes)
        self._reversed_queue = list(reversed(queue))
        self._walked = None
        self._returning = []
        self._contexts.clear()
        self._left.clear()
