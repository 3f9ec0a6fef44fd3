"""Two series that change with every token, counted in plain numbers: the ready-made metrics lock and search at each step."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class TokenTally(Collector):
    """Counts tokens and the gaps between them. Written from the event loop only; read when the page is asked for."""

    def __init__(self, *, model_name: str, gap_buckets_s: Sequence[float]) -> None:
        self._model_name = model_name
        self._edges_s = tuple(gap_buckets_s)
        self._counts = [0] * (len(self._edges_s) + 1)
        self._sum_s = 0.0
        self._num_tokens = 0

    def add(self, num_tokens: int, num_gaps: int, gap_s: float) -> None:
        """Count tokens that came together, and `num_gaps` gaps of `gap_s` each."""
        self._num_tokens += num_tokens
        if num_gaps:
            self._counts[bisect_left(self._edges_s, gap_s)] += num_gaps
            self._sum_s += num_gaps * gap_s

    def collect(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "vllm:generation_tokens", "Tokens of answers, as accepted.", labels=("model_name",)
        )
        tokens.add_metric((self._model_name,), self._num_tokens)
        yield tokens
        gaps = HistogramMetricFamily(
            "vllm:inter_token_latency_seconds",
            "Gap between two tokens of an answer; tokens that arrive together share their gap.",
            labels=("model_name",),
        )
        buckets, below = [], 0
        for edge, count in zip((*map(str, self._edges_s), "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((edge, below))
        gaps.add_metric((self._model_name,), buckets, self._sum_s)
        yield gaps
