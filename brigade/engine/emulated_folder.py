"""What an emulated worker takes from a model folder: names and limits. It needs no weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from brigade.core.errors import ModelError
from brigade.core.step import ModelInfo


def emulated_model_info(model_path: str | Path, profile: str) -> ModelInfo:
    """Describe a model folder (config.json, generation_config.json) as an emulated worker serves it. Raises ModelError.

    Workers that pretend to be different profiles have different revisions only if their folders differ: KV in this form means
    the same everywhere, and tokens do not depend on the profile.
    """
    folder = Path(model_path)
    config = _read(folder / "config.json")
    generation_path = folder / "generation_config.json"
    generation = _read(generation_path) if generation_path.is_file() else {}
    limits = config.get("text_config", config)
    eos = generation.get("eos_token_id", limits.get("eos_token_id"))
    digest = hashlib.blake2b(f"emulated {limits.get('vocab_size')}".encode(), digest_size=16)
    for name in ("config.json", "tokenizer.json"):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    try:
        return ModelInfo(
            name=folder.resolve().name,
            path=str(folder),
            architecture=f"emulated {profile}",
            revision=digest.hexdigest(),
            dtype="emulated",
            vocab_size=int(limits["vocab_size"]),
            max_model_len_tokens=int(limits["max_position_embeddings"]),
            eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, list) else (int(eos),),
            num_layers=1,
            num_kv_heads=1,
            head_dim=1,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} has no usable {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return value
