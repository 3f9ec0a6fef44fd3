"""Prompts as token ids, drawn from a seed: as long as the workload says, with the prefixes that it shares."""

from __future__ import annotations

from random import Random

from brigade.workload import WorkloadRequest


class PromptMaker:
    """Draws 256 ids at most, between `low_id` and `high_id`: enough that no two prompts are alike by chance."""

    def __init__(self, *, seed: int, low_id: int, high_id: int, prefix_block_tokens: int) -> None:
        assert 0 <= low_id < high_id
        num_ids = min(256, high_id - low_id)
        self._ids = [low_id + number * (high_id - low_id) // num_ids for number in range(num_ids)]
        self._seed = seed
        self._block_tokens = prefix_block_tokens

    def prompt(self, number: int, request: WorkloadRequest) -> list[int]:
        """Return the prompt of the `number`th request."""
        ids: list[int] = []
        for prefix_id in request.prefix_ids:
            ids += self._draw(f"prefix {prefix_id}", self._block_tokens)
        ids = ids[: request.isl]
        return ids + self._draw(f"prompt {self._seed} {number}", request.isl - len(ids))

    def _draw(self, key: str, num: int) -> list[int]:
        ids, num_ids = self._ids, len(self._ids)
        return [ids[byte % num_ids] for byte in Random(key).randbytes(num)]
