"""What the router must know of a model folder: limits, end ids and sampling defaults, without loading weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brigade.core.errors import ModelError
from services.router.contracts import SamplingDefaults, ServedModel, unlimited
from services.router.json_file import read_json_object


def read_served_model(
    folder: Path,
    *,
    name: str | None = None,
    max_model_len_tokens: int | None = None,
    pool_limit_tokens: Callable[[], int | None] = unlimited,
    created_s: int = 0,
) -> ServedModel:
    """Read config.json and generation_config.json of a model folder.

    `name` defaults to the folder's name, `max_model_len_tokens` to the model's own limit. Raises ModelError.
    """
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} does not exist")
    config = read_json_object(folder / "config.json", needed=True)
    text_config = config.get("text_config", config)
    generation = read_json_object(folder / "generation_config.json")
    limit = _positive_int(folder, text_config, "max_position_embeddings")
    if max_model_len_tokens is not None and max_model_len_tokens > limit:
        raise ModelError(f"max_model_len {max_model_len_tokens} is above the model's own limit of {limit}")
    return ServedModel(
        name=name or folder.resolve().name,
        root=str(folder),
        max_model_len_tokens=max_model_len_tokens or limit,
        vocab_size=_positive_int(folder, text_config, "vocab_size"),
        eos_token_ids=_eos_token_ids(generation) or _eos_token_ids(text_config),
        sampling_defaults=sampling_defaults(generation),
        pool_limit_tokens=pool_limit_tokens,
        created_s=created_s,
    )


def sampling_defaults(generation: Mapping[str, Any]) -> SamplingDefaults:
    """Return the sampling defaults that a generation_config.json sets; values it lacks keep the usual ones."""
    usual = SamplingDefaults()

    def number(key: str, default: float) -> float:
        value = generation.get(key)
        return default if value is None else float(value)

    return SamplingDefaults(
        temperature=number("temperature", usual.temperature),
        top_p=number("top_p", usual.top_p),
        top_k=max(0, int(number("top_k", usual.top_k))),
        min_p=number("min_p", usual.min_p),
        repetition_penalty=number("repetition_penalty", usual.repetition_penalty),
    )


def _eos_token_ids(config: Mapping[str, Any]) -> tuple[int, ...]:
    value = config.get("eos_token_id")
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _positive_int(folder: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"{folder / 'config.json'} has no usable {key}")
    return value
