"""An engine that notes what each step cost, around any other: how benchmarks tell the model's share from the path's.

`PacedEngine` makes the emulated engine take time without computing, so that everything that costs CPU is path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from brigade.core.step import Engine, ModelInfo, Sampled, Slice


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNote:
    """One step. Clock readings are CLOCK_MONOTONIC, the same for all processes of a host; CPU is the engine thread's."""

    start_s: float
    end_s: float
    cpu_s: float
    num_slices: int
    num_tokens: int
    num_sampled: int


class PacedEngine:
    """Makes every step last at least `step_s` by sleeping: no CPU."""

    def __init__(self, engine: Engine, *, step_s: float) -> None:
        self._engine = engine
        self._step_s = step_s

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def block_size_tokens(self) -> int:
        return self._engine.block_size_tokens

    @property
    def block_bytes(self) -> int:
        return self._engine.block_bytes

    @property
    def num_blocks(self) -> int:
        return self._engine.num_blocks

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        end_s = time.monotonic() + self._step_s
        results = self._engine.step(slices)
        time.sleep(max(0.0, end_s - time.monotonic()))
        return results

    def read_block(self, block: int, into: memoryview) -> None:
        self._engine.read_block(block, into)

    def write_block(self, block: int, data: memoryview) -> None:
        self._engine.write_block(block, data)

    def close(self) -> None:
        self._engine.close()


class TimedEngine(PacedEngine):
    """Notes every step; `save` writes the notes, one JSON object per line."""

    def __init__(self, engine: Engine, *, step_s: float = 0.0) -> None:
        super().__init__(engine, step_s=step_s)
        self.notes: list[StepNote] = []

    def step(self, slices: Sequence[Slice]) -> list[Sampled | None]:
        start_s, cpu_s = time.monotonic(), time.thread_time()
        results = super().step(slices)
        note = StepNote(
            start_s=start_s,
            end_s=time.monotonic(),
            cpu_s=time.thread_time() - cpu_s,
            num_slices=len(slices),
            num_tokens=sum(len(item.token_ids) for item in slices),
            num_sampled=sum(item.sample is not None for item in slices),
        )
        self.notes.append(note)
        return results

    def save(self, path: Path) -> None:
        path.write_text("".join(json.dumps(asdict(note)) + "\n" for note in self.notes), encoding="utf-8")


def load_notes(path: Path) -> list[StepNote]:
    """Read what `save` wrote."""
    return [StepNote(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
