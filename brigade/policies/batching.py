"""Which waiting prefills a worker claims next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from brigade.core.messages import PrefillJob, WaitingJob
from brigade.core.request import PRIORITY_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillView:
    """What one worker sees when it may claim.

    `num_available_blocks` are free and not promised, less what claimed jobs that have not begun will need.
    `num_in_flight_blocks` hold prefills being computed or KV that is lent; `max_in_flight_blocks` bounds them.
    `budget_tokens` is what may be claimed beyond the running step. `reserves_answers` is true where a prefill takes room
    for its whole answer (a worker that will decode it too). `max_pool_tokens` is the largest pool of all living workers that
    prefill.
    """

    waiting: tuple[WaitingJob, ...]
    budget_tokens: int
    num_blocks: int
    block_size_tokens: int
    num_available_blocks: int
    num_in_flight_blocks: int
    max_in_flight_blocks: int
    reserves_answers: bool = False
    max_pool_tokens: int = 0

    def num_tokens_for(self, job: PrefillJob) -> int:
        """Tokens that need room here when `job` is claimed."""
        return job.num_prompt_tokens + job.max_tokens if self.reserves_answers else job.num_prefill_tokens

    def num_blocks_for(self, job: PrefillJob) -> int:
        """Blocks that claiming `job` uses up."""
        return -(-self.num_tokens_for(job) // self.block_size_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillChoice:
    """Entries to claim, in the order in which they are to be computed. `reason` says why the choice ends where it does."""

    chosen: tuple[WaitingJob, ...]
    reason: str


def choose_prefills(view: PrefillView) -> PrefillChoice:
    """Choose by class, then priority, then arrival, as far as tokens and blocks go.

    Nothing overtakes a job that has no room, or large jobs would starve. The last one may exceed the token budget: it is
    computed in chunks. A job that is too large for this pool is left to a larger one; if there is none it is chosen as well,
    at no cost: its claimant tells the owner.
    """
    chosen: list[WaitingJob] = []
    budget_tokens, available = view.budget_tokens, view.num_available_blocks
    in_flight = view.num_in_flight_blocks
    for waiting in sorted(view.waiting, key=_order):
        if budget_tokens <= 0:
            return PrefillChoice(chosen=tuple(chosen), reason="token budget used up")
        num_blocks = view.num_blocks_for(waiting.job)
        if num_blocks > view.num_blocks:
            if view.num_tokens_for(waiting.job) <= view.max_pool_tokens:
                continue
        else:
            if num_blocks > available:
                return PrefillChoice(
                    chosen=tuple(chosen),
                    reason=f"{num_blocks} blocks needed, {available} of {view.num_blocks} available",
                )
            if in_flight and in_flight + num_blocks > view.max_in_flight_blocks:
                return PrefillChoice(chosen=tuple(chosen), reason=f"{in_flight} blocks are in flight")
            available -= num_blocks
            in_flight += num_blocks
            budget_tokens -= waiting.job.num_prefill_tokens
        chosen.append(waiting)
    return PrefillChoice(chosen=tuple(chosen), reason="nothing else waits" if chosen else "nothing waits")


def max_in_flight_blocks(num_blocks: int, largest_request_blocks: int) -> int:
    """How many blocks may hold KV for other workers: the largest request must still fit beside them.

    Two workers that decode for each other would otherwise fill both pools with KV lent to the other and wait for ever.
    At least half of the pool in any case: where prefills do not decode, the bound only paces them.
    """
    return max(num_blocks - largest_request_blocks, num_blocks // 2)


def _order(waiting: WaitingJob) -> tuple[int, int, float, str]:
    job = waiting.job
    known = job.priority_class in PRIORITY_CLASSES
    rank = PRIORITY_CLASSES.index(job.priority_class) if known else len(PRIORITY_CLASSES)
    return rank, job.priority, job.arrival_s, job.request_id


BatchingPolicy = Callable[[PrefillView], PrefillChoice]

BATCHING_POLICIES: Mapping[str, BatchingPolicy] = MappingProxyType({"class-priority-arrival": choose_prefills})
"""All batching policies by name."""
