"""What happened to one request, in times: the common record of live benchmarks, the emulated cluster and the simulator.

All times are integer nanoseconds since the start of the run, so that sums and orders are exact and the same everywhere.
A stamp that did not happen is None. The glossary defines the figures; each is computed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SLO:
    """Targets of one request; a missing target is always met."""

    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimeline:
    """One request of a run. `osl` is the number of output tokens that came out; `refused` means it was turned away (a miss).

    `arrival_ns` is when it was offered, `claimed_ns` when a prefill worker took it, `first_token_ns` when its first token came
    out, `decoding_ns` when it joined a decode batch, `last_token_ns` when its last token came out. `attempts` counts
    computations of it.
    """

    request_id: str
    priority_class: str
    isl: int
    osl: int
    arrival_ns: int
    claimed_ns: int | None = None
    first_token_ns: int | None = None
    decoding_ns: int | None = None
    last_token_ns: int | None = None
    num_cached_tokens: int = 0
    attempts: int = 1
    refused: bool = False
    slo: SLO = SLO()

    @property
    def is_complete(self) -> bool:
        return self.last_token_ns is not None and not self.refused

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_ns is None else (self.first_token_ns - self.arrival_ns) / NS_PER_S

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None for answers of one token."""
        if self.first_token_ns is None or self.last_token_ns is None or self.osl < 2:
            return None
        return (self.last_token_ns - self.first_token_ns) / (self.osl - 1) / NS_PER_S

    @property
    def e2e_s(self) -> float | None:
        return None if self.last_token_ns is None else (self.last_token_ns - self.arrival_ns) / NS_PER_S

    @property
    def meets_slo(self) -> bool:
        """Whether the request completed inside its targets. A refusal, or an answer that never came, is a miss."""
        if not self.is_complete:
            return False
        ttft_s, tpot_s = self.ttft_s, self.tpot_s
        assert ttft_s is not None
        in_ttft = self.slo.ttft_s is None or ttft_s <= self.slo.ttft_s
        in_tpot = self.slo.tpot_s is None or tpot_s is None or tpot_s <= self.slo.tpot_s
        return in_ttft and in_tpot


def attainment(timelines: Sequence[RequestTimeline]) -> float:
    """Return the share of requests that meet their SLO; refusals are misses. 0 of none is 0."""
    return sum(t.meets_slo for t in timelines) / len(timelines) if timelines else 0.0
