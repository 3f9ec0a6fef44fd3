"""A prefill instance of the peer: a step takes the whole queue, first come first served, up to the KV capacity in tokens.

Nothing holds KV between steps. Stages of a pipeline work on different steps at once, in order.
"""

from __future__ import annotations

from brigade.core.errors import ConfigError
from brigade.sim.peers.a100_fit import A100Fit, host_ms
from brigade.sim.peers.workload import PeerWorkload

# (end of the step in ms, its requests)
PrefillStep = tuple[float, list[int]]


def check_prompt(fit: A100Fit, workload: PeerWorkload, request: int) -> None:
    """Raise ConfigError for a prompt that no step could take."""
    length = workload.input_tokens[request]
    if length > fit.capacity_tokens:
        raise ConfigError(
            f"request {request} has {length} input tokens, more than the KV capacity of {fit.capacity_tokens}"
        )


def take_prefill(
    fit: A100Fit, workload: PeerWorkload, queue: list[int], head: int, now_ms: float
) -> tuple[int, int, int]:
    """Return the step that a worker starts now: the head of the queue after it, sum(len) and sum(len^2)."""
    arrival_ms, input_tokens, capacity_tokens = workload.arrival_ms, workload.input_tokens, fit.capacity_tokens
    num_tokens = num_squared = 0
    end = len(queue)
    while head < end and arrival_ms[queue[head]] <= now_ms:
        length = input_tokens[queue[head]]
        if num_tokens + length > capacity_tokens:
            break
        num_tokens += length
        num_squared += length * length
        head += 1
    return head, num_tokens, num_squared


class PrefillFIFO:
    """Requests are assigned in order of arrival, also ahead of time: a step never takes one that has not arrived."""

    def __init__(self, fit: A100Fit, workload: PeerWorkload, steps: list[PrefillStep]) -> None:
        """Steps are appended to `steps`."""
        self._fit = fit
        self._workload = workload
        self._steps = steps
        self._queue: list[int] = []
        self._head = 0
        self._stage_free_ms = [0.0] * fit.pp
        self._num_running = 0

    def assign(self, request: int) -> None:
        check_prompt(self._fit, self._workload, request)
        self._queue.append(request)

    def load(self, now_ms: float) -> int:
        """Return requests queued or in the first stage; correct after `advance(now_ms)`."""
        return len(self._queue) - self._head + (self._num_running if self._stage_free_ms[0] > now_ms else 0)

    def advance(self, until_ms: float) -> None:
        """Start every step that starts before `until_ms`."""
        arrival_ms = self._workload.arrival_ms
        queue, head, end = self._queue, self._head, len(self._queue)
        while head < end:
            start_ms = max(self._stage_free_ms[0], arrival_ms[queue[head]])
            if start_ms >= until_ms:
                break
            first = head
            head, num_tokens, num_squared = take_prefill(self._fit, self._workload, queue, head, start_ms)
            self._num_running = head - first
            self._steps.append((self._run_stages(start_ms, num_tokens, num_squared), queue[first:head]))
        self._head = head

    def _run_stages(self, start_ms: float, num_tokens: int, num_squared: int) -> float:
        stage_ms = self._fit.prefill_stage_ms(num_tokens, num_squared)
        end_ms = start_ms + stage_ms + host_ms(num_tokens)
        self._stage_free_ms[0] = end_ms
        for stage in range(1, self._fit.pp):
            end_ms = max(end_ms, self._stage_free_ms[stage]) + stage_ms
            self._stage_free_ms[stage] = end_ms
        return end_ms
