"""One request inside the simulator, from arrival to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brigade.core.messages import PrefillJob, WaitingJob
from brigade.core.request import ALLOWED_MOVES, RequestState, length_band
from brigade.workload import WorkloadRequest

if TYPE_CHECKING:
    from brigade.sim.pool import Hold
    from brigade.sim.worker import SimWorker

_NS_PER_S = 1_000_000_000


class SimRequest:
    """`num_out` counts the tokens that its owner has accepted, but for those of a run of decode steps that is under way.

    `holder` is the worker that its record names. `loan` is its KV where it was prefilled, `room` its place where it is decoded;
    on a mixed worker the one becomes the other. While prefilling, `num_done` and `num_left` count tokens of prompt and
    accepted prefix.
    """

    __slots__ = (
        "attempt",
        "claimed_ns",
        "decoding_ns",
        "finish_step",
        "first_token_ns",
        "holder",
        "index",
        "isl",
        "lender",
        "loan",
        "num_cached",
        "num_done",
        "num_left",
        "num_out",
        "osl",
        "request_id",
        "room",
        "state",
        "stream",
        "waiting",
        "work",
    )

    def __init__(self, index: int, work: WorkloadRequest) -> None:
        self.index = index
        self.request_id = f"r{index:08d}"
        self.work = work
        self.isl = work.isl
        self.osl = work.osl
        self.stream = (work.priority_class, length_band(work.isl))
        self.state = RequestState.QUEUED
        self.attempt = 1
        self.num_out = 0
        self.claimed_ns = -1
        self.first_token_ns = -1
        self.decoding_ns = -1
        self.num_cached = 0
        self.holder: SimWorker | None = None
        self.lender: SimWorker | None = None
        self.loan: Hold | None = None
        self.room: Hold | None = None
        self.num_done = 0
        self.num_left = 0
        self.finish_step = 0
        self.waiting: WaitingJob | None = None

    @property
    def num_total_tokens(self) -> int:
        """Prompt and longest answer."""
        return self.isl + self.osl

    def move(self, state: RequestState) -> None:
        """Go to another state, by an allowed move only."""
        assert state in ALLOWED_MOVES[self.state], f"{self.request_id} from {self.state} to {state}"
        self.state = state

    def header(self) -> WaitingJob:
        """Return what a worker's window shows of it while it waits."""
        work = self.work
        job = PrefillJob(
            request_id=self.request_id,
            attempt=self.attempt,
            priority_class=work.priority_class,
            priority=0,
            num_prompt_tokens=self.isl,
            num_prefix_tokens=self.num_out,
            max_tokens=self.osl,
            arrival_s=work.arrival_ns / _NS_PER_S,
        )
        self.waiting = WaitingJob(stream=f"q:{self.stream[0]}:{self.stream[1]}", entry_id=self.request_id, job=job)
        return self.waiting
