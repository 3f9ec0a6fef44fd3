"""One simulated worker: what it holds, and its steps.

A step decodes everything that runs and fills what is left of the token budget with prefill chunks, as the live step loop
does. A run of decode steps with nothing to prefill is one event: it is priced in closed form up to the first request that
ends, and cut at a step's end when somebody joins or is claimed (`cut`).
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from heapq import heappop, heappush

from brigade.core.messages import Role, WorkerView
from brigade.policies.batching import max_in_flight_blocks
from brigade.policies.cost_model import CostModel, PrefillPart
from brigade.policies.placement import Handed
from brigade.sim.pool import BlockPool, Pool, PromisePool
from brigade.sim.request import SimRequest
from brigade.sim.scenario import WorkerSpec


class WorkerState(Enum):
    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()
    DEAD = auto()


class SimWorker:
    """`version` changes whenever the end of the running step does: events of older versions mean nothing.

    `num_unstarted_tokens` and `num_unstarted_blocks` are of claimed work beyond the running step, `num_held_blocks` of begun
    prefills. `batch` is a heap of (decode step at which it ends, index, request); `num_steps` counts decode steps done,
    `num_context_tokens` the KV of the batch before the next one.
    """

    __slots__ = (
        "active",
        "arriving",
        "batch",
        "block_size_tokens",
        "claimed",
        "copy_free_ns",
        "costs",
        "desired_role",
        "epoch",
        "handed",
        "has_any_target",
        "host_step_ns",
        "in_step",
        "index",
        "is_poked",
        "is_rung",
        "is_stepping",
        "joining",
        "max_batch_tokens",
        "max_in_flight_blocks",
        "max_num_seqs",
        "max_pool_tokens",
        "num_blocks",
        "num_context_tokens",
        "num_held_blocks",
        "num_run_steps",
        "num_steps",
        "num_unstarted_blocks",
        "num_unstarted_tokens",
        "pool",
        "refused",
        "role",
        "run_end_ns",
        "run_start_ns",
        "spec",
        "started_ns",
        "state",
        "unplaced",
        "version",
        "views",
        "waiting",
        "worker_id",
    )

    def __init__(
        self,
        index: int,
        spec: WorkerSpec,
        costs: CostModel,
        *,
        block_size_tokens: int,
        host_step_ns: int,
        prefix_block_tokens: int,
    ) -> None:
        """`prefix_block_tokens` is 0 where no two requests share a prefix."""
        self.index = index
        self.spec = spec
        self.worker_id = spec.worker_id
        self.costs = costs
        self.host_step_ns = host_step_ns
        self.block_size_tokens = block_size_tokens
        self.num_blocks = spec.num_blocks
        self.max_batch_tokens = spec.max_batch_tokens
        self.max_num_seqs = spec.max_num_seqs
        self.role = spec.role
        self.epoch = 0
        self.desired_role: Role | None = None
        self.state = WorkerState.STARTING
        self.max_in_flight_blocks = self.num_blocks
        self.version = 0
        self.is_poked = False
        self.is_rung = False
        self.max_pool_tokens = 0
        self.reset(prefix_block_tokens)

    def reset(self, prefix_block_tokens: int) -> None:
        """Begin a life: nothing is held."""
        pool: Pool
        if prefix_block_tokens:
            pool = BlockPool(self.num_blocks, self.block_size_tokens, prefix_block_tokens)
        else:
            pool = PromisePool(self.num_blocks, self.block_size_tokens)
        self.pool = pool
        self.version += 1
        self.claimed: deque[SimRequest] = deque()
        self.active: list[SimRequest] = []
        self.in_step: list[tuple[SimRequest, int]] = []
        self.unplaced: list[SimRequest] = []
        self.num_unstarted_tokens = 0
        self.num_unstarted_blocks = 0
        self.num_held_blocks = 0
        self.waiting: deque[SimRequest] = deque()
        self.arriving: dict[int, SimRequest] = {}
        self.joining: list[SimRequest] = []
        self.batch: list[tuple[int, int, SimRequest]] = []
        self.num_context_tokens = 0
        self.num_steps = 0
        self.copy_free_ns = 0
        self.is_stepping = False
        self.run_start_ns = 0
        self.run_end_ns = 0
        self.num_run_steps = 0
        self.views: tuple[WorkerView, ...] = ()
        self.has_any_target = False
        self.handed: dict[str, Handed] = {}
        self.refused: frozenset[str] = frozenset()

    # -- what there is ---------------------------------------------------------------------------------------------------

    def set_largest_request(self, num_tokens: int) -> None:
        """Bound what may be lent: the largest request that admission accepts must fit beside it."""
        largest = min(self.blocks_for(num_tokens), self.num_blocks)
        self.max_in_flight_blocks = max_in_flight_blocks(self.num_blocks, largest)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size_tokens)

    @property
    def num_decoding(self) -> int:
        return len(self.batch) + len(self.joining)

    @property
    def is_open(self) -> bool:
        """Whether it claims."""
        return self.state is WorkerState.SERVING and self.role is not Role.DECODE

    @property
    def is_alive(self) -> bool:
        return self.state is WorkerState.SERVING or self.state is WorkerState.DRAINING

    @property
    def is_idle(self) -> bool:
        """Whether nothing is claimed, computed, handed over, waiting, arriving or running; loans may be open."""
        return not (
            self.claimed or self.active or self.unplaced or self.waiting or self.arriving or self.joining or self.batch
        )

    @property
    def num_left_tokens(self) -> int:
        """Prompt tokens still to be computed, the running step's included."""
        return self.num_unstarted_tokens + sum(num_tokens for _, num_tokens in self.in_step)

    def may_claim(self) -> bool:
        """The live worker's own conditions, before it asks the policy."""
        return (
            self.num_unstarted_tokens < self.max_batch_tokens
            and self.state is WorkerState.SERVING
            and self.role is not Role.DECODE
            and not self.waiting
            and (self.role is Role.MIXED or self.has_any_target)
        )

    # -- steps -----------------------------------------------------------------------------------------------------------

    def begin_step(self, now_ns: int, *, skips: bool) -> bool:
        """Collect and price the next step, or run of decode steps. False when there is nothing to compute."""
        batch = self.batch
        if self.joining:
            for request in self.joining:
                request.finish_step = self.num_steps + request.osl - request.num_out
                self.num_context_tokens += request.isl + request.num_out - 1
                heappush(batch, (request.finish_step, request.index, request))
            self.joining.clear()
        num_seqs, num_steps = len(batch), 1
        parts = self._collect(self.max_batch_tokens - num_seqs) if self.active or self.claimed else None
        if parts:
            if num_seqs:
                duration_ns = self.costs.mixed_step_ns(parts, num_seqs, self.num_context_tokens)
            else:
                duration_ns = self.costs.prefill_ns(parts)
        elif num_seqs:
            if skips:
                num_steps = batch[0][0] - self.num_steps
            duration_ns = self.costs.decode_run_ns(num_seqs, self.num_context_tokens, num_steps)
        else:
            return False
        duration_ns += self.host_step_ns * num_steps
        assert duration_ns > 0, f"{self.costs.name} prices a step at {duration_ns} ns"
        self.is_stepping = True
        self.run_start_ns = now_ns
        self.run_end_ns = now_ns + duration_ns
        self.num_run_steps = num_steps
        self.version += 1
        return True

    def cut(self, now_ns: int) -> bool:
        """The batch changes: end the run with the step that is under way at `now_ns`. False when it ends so anyhow."""
        if not self.is_stepping or self.num_run_steps == 1:
            return False
        num_steps, ends_ns = self._steps_until(now_ns)
        if num_steps == self.num_run_steps:
            return False
        self.num_run_steps, self.run_end_ns = num_steps, ends_ns
        self.version += 1
        return True

    def num_steps_before(self, now_ns: int) -> int:
        """Return how many steps of the running run ended before `now_ns`."""
        return self._steps_until(now_ns)[0] - 1 if self.is_stepping else 0

    def end_step(self) -> list[SimRequest]:
        """Count the tokens of a finished run; return the requests that have their last one, in a fixed order."""
        self.is_stepping = False
        batch, num_steps = self.batch, self.num_run_steps
        if not batch:
            return []
        self.num_steps += num_steps
        self.num_context_tokens += num_steps * len(batch)
        ended = []
        while batch and batch[0][0] == self.num_steps:
            request = heappop(batch)[2]
            request.num_out = request.osl
            self.num_context_tokens -= request.isl + request.osl - 1
            ended.append(request)
        return ended

    def end_prefill(self) -> list[SimRequest]:
        """Count the prefill tokens of a finished step; return the requests whose prefill is complete."""
        step, self.in_step = self.in_step, []
        done = []
        for request, num_tokens in step:
            assert request.loan is not None
            self.pool.fill(request, request.loan, request.num_done, request.num_done + num_tokens)
            request.num_done += num_tokens
            request.num_left -= num_tokens
            if not request.num_left:
                self.active.remove(request)
                self.num_held_blocks -= request.loan.num_blocks
                done.append(request)
        return done

    def add(self, request: SimRequest) -> None:
        """Queue a claimed request; it holds no blocks until it begins."""
        request.num_left = request.isl + request.num_out
        request.num_done = 0
        self.num_unstarted_tokens += request.num_left
        self.num_unstarted_blocks += self._prefill_blocks(request)
        self.claimed.append(request)

    def _collect(self, max_tokens: int) -> list[PrefillPart]:
        """Return the prefill parts of the next step, in the order in which the jobs were claimed."""
        parts: list[PrefillPart] = []
        for request in self.active:
            if max_tokens <= 0:
                return parts
            max_tokens -= self._schedule(request, max_tokens, parts)
        passed: list[SimRequest] = []
        while self.claimed and max_tokens > 0:
            request = self.claimed[0]
            num_blocks = self._prefill_blocks(request)
            if not self.pool.can_admit(request, num_blocks, request.num_left - 1):
                break  # nothing overtakes a job that has no room
            self.claimed.popleft()
            if self.pool.can_share_soon(request):
                passed.append(request)
                continue
            self.num_unstarted_blocks -= num_blocks
            num_prompt_blocks = self.blocks_for(request.num_left)
            num_rest = num_blocks - num_prompt_blocks if self.role is Role.MIXED else None
            request.loan, num_cached = self.pool.begin(request, num_prompt_blocks, num_rest)
            request.lender = self
            if num_cached:
                request.num_cached = min(num_cached, request.isl)
                request.num_done += num_cached
                request.num_left -= num_cached
                self.num_unstarted_tokens -= num_cached
            self.num_held_blocks += num_prompt_blocks
            self.active.append(request)
            max_tokens -= self._schedule(request, max_tokens, parts)
        self.claimed.extendleft(reversed(passed))
        return parts

    def _schedule(self, request: SimRequest, max_tokens: int, parts: list[PrefillPart]) -> int:
        num_tokens = min(request.num_left, max_tokens)
        parts.append(PrefillPart(num_new_tokens=num_tokens, num_context_tokens=request.num_done))
        self.in_step.append((request, num_tokens))
        self.num_unstarted_tokens -= num_tokens
        return num_tokens

    def _prefill_blocks(self, request: SimRequest) -> int:
        mixed = self.role is Role.MIXED
        return self.blocks_for(request.num_total_tokens if mixed else request.isl + request.num_out)

    def _steps_until(self, now_ns: int) -> tuple[int, int]:
        """Return the first step of the run that ends at `now_ns` or later, counted from 1, and when it ends."""
        costs, num_seqs, context, host_ns = self.costs, len(self.batch), self.num_context_tokens, self.host_step_ns
        start_ns = self.run_start_ns
        elapsed_ns = now_ns - start_ns
        low, low_ns = 0, 0  # ends before
        high, high_ns = self.num_run_steps, self.run_end_ns - start_ns  # ends at or after
        tries = 0
        while high - low > 1:
            if (
                tries < 4
            ):  # steps of a run are almost equal: interpolate, first just beyond the goal, then just before it
                middle = low + (high - low) * (elapsed_ns - low_ns) // (high_ns - low_ns) + (1 - (tries & 1))
                middle = min(max(middle, low + 1), high - 1)
            else:
                middle = (low + high) // 2
            tries += 1
            middle_ns = costs.decode_run_ns(num_seqs, context, middle) + host_ns * middle
            if middle_ns < elapsed_ns:
                low, low_ns = middle, middle_ns
            else:
                high, high_ns = middle, middle_ns
        return high, start_ns + high_ns
