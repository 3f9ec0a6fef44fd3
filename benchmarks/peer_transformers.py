"""The same closed loop through transformers' ContinuousBatchingManager, driven by its own interface.

`num_blocks` is passed because the automatic size takes most of the machine's memory. The manager stamps each token
itself with the clock that stamps the arrival, so no token is delivered one by one: the cheapest way to drive it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager

from benchmarks.measures import RequestTimes
from benchmarks.workload import BenchRequest

PAGE_SIZE_TOKENS = 256
_NO_EOS = -1
_RESULT_DEADLINE_S = 600.0


class TransformersLoop:
    """A started manager over one model. `max_batch_tokens` None leaves the choice to transformers."""

    def __init__(
        self, model_path: Path, *, dtype: str, num_pool_tokens: int, max_batch_tokens: int | None, num_threads: int
    ) -> None:
        torch.set_num_threads(num_threads)
        model = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=getattr(torch, dtype), attn_implementation="sdpa", local_files_only=True
        )
        self._manager: ContinuousBatchingManager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=_NO_EOS, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_SIZE_TOKENS,
                num_blocks=num_pool_tokens // PAGE_SIZE_TOKENS,
                max_batch_tokens=max_batch_tokens,
            ),
        )
        self._manager.start()

    @property
    def max_batch_tokens(self) -> int:
        """What was given or chosen; known after the first request."""
        return int(self._manager.continuous_batching_config.max_batch_tokens or 0)

    def run(self, requests: Iterable[BenchRequest], *, concurrency: int) -> list[RequestTimes]:
        """Answer all requests, `concurrency` at a time; times are in the order in which the answers ended."""
        waiting = deque(requests)
        sent: dict[str, tuple[float, BenchRequest]] = {}
        times = []
        while waiting or sent:
            while waiting and len(sent) < concurrency:
                request = waiting.popleft()
                sent_s = time.perf_counter()
                request_id = self._manager.add_request(
                    list(request.prompt_token_ids),
                    max_new_tokens=request.num_output_tokens,
                    record_timestamps=True,
                    eos_token_id=_NO_EOS,
                )
                assert request_id is not None, "the manager refused a request"
                sent[request_id] = (sent_s, request)
            output = self._manager.get_result(timeout=_RESULT_DEADLINE_S)
            assert output is not None, "the manager gave no result in time"
            assert output.error is None, output.error
            sent_s, request = sent.pop(output.request_id)
            assert len(output.generated_tokens) == request.num_output_tokens == len(output.timestamps or ())
            times.append(RequestTimes(sent_s=sent_s, token_s=tuple(output.timestamps or ())))
        return times

    def close(self) -> None:
        self._manager.stop(block=True, timeout=30)
