"""The step times of simdistserve: DistServe's fits on A100-80GB, plus the terms that the peer adds to them.

A prefill step takes (a + b*sum(len) + c*sum(len^2))/pp + pp ms on each of the pp stages, a decode step
(a + b*sum(context + 1) + c*batch)/pp ms, with other coefficients from a batch of 95 on. The first stage adds 2 ms and 0.0001 ms
per token for the host. Floats in the peer's own order, so that results can be compared request by request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from brigade.core.errors import ConfigError
from brigade.policies.profile import profiles_folder

HOST_STEP_MS = 2.0
HOST_TOKEN_MS = 0.0001
STAGE_MS = 1.0

Coefficients = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class A100Fit:
    """One engine's fit for a model on `tp` × `pp` GPUs. `capacity_tokens` is the KV capacity of the whole pipeline."""

    tp: int
    pp: int
    prefill: Coefficients
    decode_small: Coefficients
    decode_large: Coefficients
    large_batch: int
    capacity_tokens: int

    @property
    def num_gpus(self) -> int:
        return self.tp * self.pp

    def prefill_stage_ms(self, num_tokens: int, num_squared_tokens: int) -> float:
        """Return the time of a prefill step on one stage, without the host's part."""
        a, b, c = self.prefill
        return (a + b * num_tokens + c * num_squared_tokens) / self.pp + STAGE_MS * self.pp

    def decode_line(self, batch: int) -> tuple[float, float]:
        """Return (base, slope): a decode step on one stage takes base + slope * sum(context) ms, without the host's part."""
        a, b, c = self.decode_small if batch < self.large_batch else self.decode_large
        return (a + b * batch + c * batch) / self.pp, b / self.pp


def host_ms(num_tokens: int) -> float:
    """Return what the host adds to a step on the first stage."""
    return HOST_STEP_MS + HOST_TOKEN_MS * num_tokens


def load_fit(*, engine: str, model: str, tp: int, pp: int, path: Path | None = None) -> A100Fit:
    """Return the fit of `engine` (distserve, vllm) for e.g. facebook/opt-13b. Raises ConfigError for one that was not made."""
    path = path or profiles_folder() / "source" / "distserve_fit_a100.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    fits = document["fit"]
    capacities = {(row["model"], row["tp"], row["pp"]): row["max_num_tokens"] for row in document["max_num_tokens"]}
    fit = fits.get(engine, {}).get(model, {}).get(str(tp))
    if fit is None or (model, tp, pp) not in capacities:
        raise ConfigError(f"{path}: has no fit of engine {engine} for {model} on tp {tp}, pp {pp}")
    return A100Fit(
        tp=tp,
        pp=pp,
        prefill=tuple(fit["prefill"]),
        decode_small=tuple(fit["decoding_smallbs"]),
        decode_large=tuple(fit["decoding_largebs"]),
        large_batch=fit["decoding_large_small_bs_threshold"],
        capacity_tokens=capacities[model, tp, pp],
    )
