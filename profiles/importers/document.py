"""Puts a profile document together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import fsum

from brigade.policies.profile import FORMAT
from profiles.importers.hardware import (
    CAPACITY_RULE,
    GPUS,
    MODELS,
    TRANSFER_LATENCY_NS,
    kv_capacity_tokens,
    transfer_bytes_per_s,
)

Document = dict[str, object]
TRANSFER_NOTE = "KV transfer is assumed: one network card per GPU (A100 200, H100 and H200 400 Gbit/s), 50 us latency"


def make_document(
    *,
    gpu: str,
    model: str,
    num_gpus: int,
    variant: str = "",
    origin: str,
    source: str,
    licence: str,
    notes: Iterable[str],
    prefill: Mapping[str, object],
    decode: Mapping[str, object],
    residuals: Mapping[str, Mapping[str, float]],
    capacity_tokens: int | None = None,
    capacity_by_pipeline: Mapping[int, int] | None = None,
) -> Document:
    """Return the profile gpu/model(-variant)/tpN. Without a capacity of the source it follows from the hardware."""
    facts = MODELS[model]
    rule = "as the source gives it" if capacity_tokens is not None else CAPACITY_RULE
    if capacity_tokens is None:
        capacity_tokens = kv_capacity_tokens(GPUS[gpu], facts, num_gpus)
    kv: Document = {"bytes_per_token": facts.kv_bytes_per_token, "capacity_tokens": capacity_tokens, "rule": rule}
    if capacity_by_pipeline:
        kv["capacity_tokens_by_pipeline"] = {str(stages): tokens for stages, tokens in capacity_by_pipeline.items()}
    return {
        "format": FORMAT,
        "name": f"{gpu}/{model}{variant}/tp{num_gpus}",
        "origin": origin,
        "source": source,
        "licence": licence,
        "notes": [*notes, TRANSFER_NOTE],
        "num_gpus": num_gpus,
        "prefill": prefill,
        "decode": decode,
        "kv": kv,
        "transfer": {
            "origin": "assumed",
            "latency_ns": TRANSFER_LATENCY_NS,
            "bytes_per_s": transfer_bytes_per_s(GPUS[gpu], num_gpus),
        },
        "host_step_ns": 0,
        "residuals": residuals,
    }


def residuals_of(pairs: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Sum up (fitted, measured) durations in nanoseconds."""
    pairs = list(pairs)
    absolute = [abs(fitted - measured) for fitted, measured in pairs]
    relative = [abs(fitted / measured - 1) for fitted, measured in pairs]
    return {
        "num_points": len(pairs),
        "mean_abs_ns": round(fsum(absolute) / len(pairs)),
        "max_abs_ns": round(max(absolute)),
        "mean_rel": round(fsum(relative) / len(pairs), 5),
        "max_rel": round(max(relative), 5),
    }


def ns_of_ms(duration_ms: float) -> float:
    """Return nanoseconds without the dust of binary fractions."""
    return float(f"{duration_ms * 1e6:.9g}")
