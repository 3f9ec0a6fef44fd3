"""Splitwise's end-to-end measurements: medians of prefill over the tokens of a batch and of decode over the batch."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from profiles.importers.document import Document, make_document, residuals_of

FILE = "splitwise_perf_model_median.csv.gz"
SOURCE = "Mutinifni/splitwise-sim @ 8f99e7d, data/perf_model.csv, vLLM of 2023"
GPU_NAMES = {"a100-80gb": "a100", "h100-80gb": "h100", "h100-80gb-pcap": "h100-capped"}
MODEL_NAMES = {"bloom-176b": "bloom-176b", "llama2-70b": "llama-2-70b"}
NOTES = (
    "measured end to end: the 30 to 45 ms that a decode step of 2023 spends on the host are part of it",
    "residuals: medians of several settings with the same tokens (prefill) or batch (decode)",
)
IMPLAUSIBLE_SHARE = 0.5
"""A batch that is twice as fast as a smaller one was not computed in one step (the KV did not fit)."""


def documents(folder: Path) -> Iterator[Document]:
    """Yield a profile per GPU, model and tensor parallelism."""
    groups: dict[tuple[str, str, int], list[Mapping[str, str]]] = defaultdict(list)
    with gzip.open(folder / FILE, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (GPU_NAMES[row["hardware"]], MODEL_NAMES[row["model"]], int(row["tensor_parallel"]))
            groups[key].append(row)
    for (gpu, model, tp), rows in sorted(groups.items()):
        prefills = [(int(r["batch_size"]) * int(r["prompt_size"]), float(r["prefill_ms"]) * 1e6) for r in rows]
        decodes = [
            (int(r["batch_size"]), float(r["decode_ms_per_token"]) * 1e6) for r in rows if r["decode_ms_per_token"]
        ]
        prefill, left_out = _medians(prefills)
        decode, _ = _medians(decodes)
        extra = [f"left out, implausibly fast: prefill of {count} tokens" for count in left_out]
        yield make_document(
            gpu=gpu,
            model=model,
            num_gpus=tp,
            origin="measured",
            source=SOURCE,
            licence="MIT",
            notes=[*NOTES, *extra],
            prefill={"form": "table", "tokens": list(prefill), "ns": list(prefill.values())},
            decode={"form": "table", "batches": list(decode), "ns": list(decode.values())},
            residuals={
                "prefill": residuals_of((prefill[count], ns) for count, ns in prefills if count in prefill),
                "decode": residuals_of((decode[count], ns) for count, ns in decodes if count in decode),
            },
        )


def _medians(points: Sequence[tuple[int, float]]) -> tuple[dict[int, int], list[int]]:
    """Return the median per count, and the counts left out."""
    by_count: dict[int, list[float]] = defaultdict(list)
    for count, ns in points:
        by_count[count].append(ns)
    kept: dict[int, int] = {}
    left_out = []
    for count in sorted(by_count):
        ns = round(median(by_count[count]))
        if kept and ns < IMPLAUSIBLE_SHARE * max(kept.values()):
            left_out.append(count)
        else:
            kept[count] = ns
    return kept, left_out
