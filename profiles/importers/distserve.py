"""DistServe's fits on A100-80GB: prefill = a + b*sum(len) + c*sum(len^2), decode = a + b*sum(context) + c*batch, in ms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from profiles.importers.document import Document, make_document, ns_of_ms

SOURCE = "LLMServe/DistServe @ 82831f1, simdistserve/estimators/profile_data (engine {engine}), A100-80GB SXM"
NOTES = (
    "fitted by its authors on their measurements, which are not published; their residuals are unknown",
    "one pipeline stage; without the 1 ms per stage and the host terms that simdistserve adds",
)
VARIANTS = {"distserve": "", "vllm": "-vllm"}


def documents(folder: Path) -> Iterator[Document]:
    """Yield a profile per engine, model and tensor parallelism. Fits with a negative coefficient are left out."""
    data = json.loads((folder / "distserve_fit_a100.json").read_text(encoding="utf-8"))
    capacities = {(row["model"], row["tp"], row["pp"]): row["max_num_tokens"] for row in data["max_num_tokens"]}
    for engine, models in data["fit"].items():
        for model, fits in models.items():
            for tp, fit in fits.items():
                small, large = fit["decoding_smallbs"], fit["decoding_largebs"]
                if min(*fit["prefill"], *small, *large) < 0:
                    continue
                by_pipeline = {
                    stages: tokens
                    for (name, width, stages), tokens in capacities.items()
                    if (name, width) == (model, int(tp))
                }
                threshold = fit["decoding_large_small_bs_threshold"]
                yield make_document(
                    gpu="a100",
                    model=model.split("/")[1],
                    variant=VARIANTS[engine],
                    num_gpus=int(tp),
                    origin="fitted",
                    source=SOURCE.format(engine=engine),
                    licence="Apache-2.0",
                    notes=NOTES,
                    prefill=_prefill(*fit["prefill"]),
                    decode={"form": "linear", "regimes": [_regime(1, *small), _regime(threshold, *large)]},
                    residuals={},
                    capacity_tokens=by_pipeline[1],
                    capacity_by_pipeline=by_pipeline,
                )


def _prefill(base_ms: float, per_token_ms: float, per_attention_ms: float) -> Document:
    return {
        "form": "linear",
        "base_ns": ns_of_ms(base_ms),
        "per_token_ns": ns_of_ms(per_token_ms),
        "per_attention_ns": ns_of_ms(per_attention_ms),
        "per_sequence_ns": 0,
    }


def _regime(min_batch: int, base_ms: float, per_context_token_ms: float, per_sequence_ms: float) -> Document:
    return {
        "min_batch": min_batch,
        "base_ns": ns_of_ms(base_ms),
        "per_context_token_ns": ns_of_ms(per_context_token_ms),
        "per_sequence_ns": ns_of_ms(per_sequence_ms),
    }
