"""aiconfigurator's step latencies: prefill over batch x length (some with a cached prefix), decode over batch x context.

Prefill is reduced to a curve over the new tokens of the step plus one price per attended token pair: at equal tokens, its
latencies are linear in the pairs, with the same slope for batches and for cached prefixes. Decode keeps every point.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

from profiles.importers.document import Document, make_document, residuals_of

FILES = ("aic_vllm_step_latency.csv.gz", "aic_vllm_llama70b_fp8.csv.gz")
SOURCE = "aiconfigurator 0.12.0, operator database of vLLM {version}"
VERSIONS = {"a100": "0.14.0", "h100": "0.24.0", "h200": "0.24.0"}
NOTES = (
    "composed from measured kernels by its own engine; not measured end to end, no host overhead",
    "KV in 16 bits is assumed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One latency. `length` counts the tokens of each sequence, the cached prefix included."""

    phase: str
    batch: int
    length: int
    cached: int
    latency_ns: int

    @property
    def num_new_tokens(self) -> int:
        return self.batch * (self.length - self.cached)

    @property
    def attention(self) -> int:
        return self.batch * (self.length**2 - self.cached**2)


def documents(folder: Path) -> Iterator[Document]:
    """Yield a profile per GPU, model and tensor parallelism."""
    for (gpu, model, tp), rows in sorted(_read(folder).items()):
        prefill, residuals = _prefill([row for row in rows if row.phase == "prefill"])
        yield make_document(
            gpu=gpu,
            model=model,
            num_gpus=tp,
            origin="composed",
            source=SOURCE.format(version=VERSIONS[gpu]),
            licence="Apache-2.0",
            notes=NOTES,
            prefill=prefill,
            decode=_decode([row for row in rows if row.phase == "decode"]),
            residuals={"prefill": residuals},
        )


def _read(folder: Path) -> dict[tuple[str, str, int], list[Row]]:
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for name in FILES:
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key = (row["gpu"].removesuffix("_sxm"), row["model"].lower(), int(row["tp"]))
                groups[key].append(
                    Row(
                        phase=row["phase"],
                        batch=int(row["batch"]),
                        length=int(row["tokens_per_seq"]),
                        cached=int(row["cached_prefix_tokens"]),
                        latency_ns=round(float(row["latency_ms"]) * 1e6),
                    )
                )
    return groups


def _prefill(rows: Sequence[Row]) -> tuple[Document, dict[str, float]]:
    """Fit one attention price and one value per number of new tokens, by least squares of the relative errors."""
    by_tokens: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_tokens[row.num_new_tokens].append(row)
    numerators, denominators = [], []
    for group in by_tokens.values():
        mean_attention = _mean(group, [row.attention for row in group])
        mean_latency = _mean(group, [row.latency_ns for row in group])
        for row in group:
            off = row.attention - mean_attention
            numerators.append(off * (row.latency_ns - mean_latency) / row.latency_ns**2)
            denominators.append(off * off / row.latency_ns**2)
    per_attention = round(max(0.0, fsum(numerators) / fsum(denominators)), 6)
    curve = {
        tokens: round(_mean(group, [row.latency_ns - per_attention * row.attention for row in group]))
        for tokens, group in sorted(by_tokens.items())
    }
    residuals = residuals_of(
        (curve[row.num_new_tokens] + per_attention * row.attention, row.latency_ns) for row in rows
    )
    return {
        "form": "grid",
        "per_attention_ns": per_attention,
        "per_sequence_ns": 0,
        "tokens": list(curve),
        "ns": list(curve.values()),
    }, residuals


def _mean(rows: Sequence[Row], values: Sequence[float]) -> float:
    """The mean that is best in relative terms."""
    weights = [1 / row.latency_ns**2 for row in rows]
    return fsum(weight * value for weight, value in zip(weights, values, strict=True)) / fsum(weights)


def _decode(rows: Sequence[Row]) -> Document:
    by_batch: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.batch, row.length)):
        by_batch[row.batch].append(row)
    return {
        "form": "grid",
        "rows": [
            {
                "batch": batch,
                "context_tokens": [row.length for row in group],
                "ns": [row.latency_ns for row in group],
            }
            for batch, group in by_batch.items()
        ],
    }
