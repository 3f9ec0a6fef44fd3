"""What goes into a peer mode and what comes out, in the units and by the definitions of the peers.

Times are float milliseconds, as in the peers' own arithmetic: these modes are held to other people's output, not to ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from brigade.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWorkload:
    """Requests in order of arrival. The three columns have one entry per request; lengths are tokens and at least 1."""

    arrival_ms: Sequence[float]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]

    def __post_init__(self) -> None:
        sizes = {len(self.arrival_ms), len(self.input_tokens), len(self.output_tokens)}
        if len(sizes) != 1:
            raise ConfigError(f"a peer workload needs columns of one length, not of {sorted(sizes)}")
        if any(later < earlier for earlier, later in pairwise(self.arrival_ms)):
            raise ConfigError("a peer workload must be in order of arrival")
        for name, column in (("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)):
            if column and min(column) < 1:
                raise ConfigError(f"{name} must be 1 or more; request {column.index(min(column))} has {min(column)}")

    def __len__(self) -> int:
        return len(self.arrival_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How a model lies on GPUs: tensor and pipeline parallelism of the instances of each phase, and their numbers.

    A peer that does both phases on each worker has `tp_decode` 0 and uses what is said of prefill.
    """

    model: str
    tp_prefill: int
    pp_prefill: int = 1
    tp_decode: int = 0
    pp_decode: int = 0
    num_prefill: int = 1
    num_decode: int = 1

    @property
    def num_gpus(self) -> int:
        return self.num_prefill * self.tp_prefill * self.pp_prefill + self.num_decode * self.tp_decode * self.pp_decode


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRun:
    """Latencies per request, in the order of the workload.

    `tpot_ms` is the peers' TPOT: the time from the end of prefill to the end of the last decode iteration, divided by the
    output length. It counts waiting for decode, and divides by one more than the glossary's TPOT does.
    """

    ttft_ms: Sequence[float]
    tpot_ms: Sequence[float]
    total_ms: Sequence[float]

    def attainment(self, *, ttft_ms: float, tpot_ms: float) -> float:
        """Return the share of requests inside both targets, 0 to 1. 0 of none is 0."""
        pairs = zip(self.ttft_ms, self.tpot_ms, strict=True)
        inside = sum(first <= ttft_ms and per_token <= tpot_ms for first, per_token in pairs)
        return inside / len(self.ttft_ms) if self.ttft_ms else 0.0


def make_run(workload: PeerWorkload, prefilled_ms: Sequence[float], finished_ms: Sequence[float]) -> PeerRun:
    """Return the latencies of requests whose prefill and last iteration ended at these times."""
    columns = zip(workload.arrival_ms, prefilled_ms, finished_ms, workload.output_tokens, strict=True)
    ttft_ms, tpot_ms, total_ms = [], [], []
    for arrived, prefilled, finished, output_tokens in columns:
        ttft_ms.append(prefilled - arrived)
        tpot_ms.append((finished - prefilled) / output_tokens)
        total_ms.append(finished - arrived)
    return PeerRun(ttft_ms=ttft_ms, tpot_ms=tpot_ms, total_ms=total_ms)
