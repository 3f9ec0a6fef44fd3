"""Reads a Hugging Face model folder without loading its weights: config, tensor headers, revision, sizes.

Standard library only, so that a process without torch can ask what a folder holds. The shape of a decoder that our own
forward does not know is asked from transformers, which is imported only then.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brigade.core.errors import ModelError
from brigade.core.step import ModelInfo

# Architectures that the lean forward computes; everything else runs by its own forward.
LEAN_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

# What transformers assumes when a config leaves a field out and the answer is not derived from another field.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "MistralForCausalLM": {"num_key_value_heads": 8, "sliding_window": 4096},
    "Qwen2ForCausalLM": {"num_key_value_heads": 32},
    "Qwen3ForCausalLM": {"num_key_value_heads": 32, "head_dim": 128},
}

_HASHED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_NUM_PROBES = 64
_PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies and what its header says."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The parsed small files of a model folder."""

    path: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    architecture: str
    weight_files: tuple[Path, ...]

    @property
    def is_lean(self) -> bool:
        return self.architecture in LEAN_ARCHITECTURES


def open_folder(model_path: str | Path) -> ModelFolder:
    """Read the small files of a model folder. Raises ModelError when something needed is missing."""
    path = Path(model_path)
    if not path.is_dir():
        raise ModelError(f"there is no model folder at {path}")
    config_path = path / "config.json"
    if not config_path.is_file():
        raise ModelError(f"the model folder {path} has no config.json")
    config = _read_json(config_path)
    architectures = config.get("architectures") or []
    if not architectures:
        raise ModelError(f"{config_path} names no architecture")
    generation_path = path / "generation_config.json"
    weight_files = tuple(sorted(path.glob("*.safetensors")))
    index_path = path / "model.safetensors.index.json"
    if index_path.is_file():
        names = sorted(set(_read_json(index_path).get("weight_map", {}).values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise ModelError(f"the model folder {path} lacks {', '.join(missing)}, which its index names")
        weight_files = tuple(path / name for name in names)
    elif (path / "model.safetensors").is_file():
        weight_files = (path / "model.safetensors",)
    if not weight_files:
        raise ModelError(f"the model folder {path} has no .safetensors weights")
    return ModelFolder(
        path=path,
        config={**_DEFAULTS.get(str(architectures[0]), {}), **config},
        generation_config=_read_json(generation_path) if generation_path.is_file() else {},
        architecture=str(architectures[0]),
        weight_files=weight_files,
    )


def model_info(model_path: str | Path, dtype: str = "auto") -> ModelInfo:
    """Describe the model in a folder as it would be served in `dtype` ('float32', 'bfloat16', 'auto': the config's)."""
    folder = open_folder(model_path)
    config: Mapping[str, Any] = folder.config if folder.is_lean else _transformers_config(folder)
    try:
        num_heads = int(config["num_attention_heads"])
        head_dim = config.get("head_dim") or int(config["hidden_size"]) // num_heads
        info = ModelInfo(
            name=folder.path.resolve().name,
            path=str(folder.path),
            architecture=folder.architecture,
            revision=_revision(folder),
            dtype=resolve_dtype(folder, dtype),
            vocab_size=int(config["vocab_size"]),
            max_model_len_tokens=int(config["max_position_embeddings"]),
            eos_token_ids=_eos_token_ids(folder),
            num_layers=int(config["num_hidden_layers"]),
            num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
            head_dim=int(head_dim),
        )
    except KeyError as error:
        raise ModelError(f"{folder.architecture} is not supported: its config has no {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise ModelError(f"the config of {folder.path} has a value of the wrong type: {error}") from None
    return info


def block_bytes(info: ModelInfo, block_size_tokens: int) -> int:
    """Return the bytes of one KV block: all layers, keys and values."""
    return info.num_layers * 2 * info.num_kv_heads * block_size_tokens * info.head_dim * DTYPE_BYTES[info.dtype]


def resolve_dtype(folder: ModelFolder, dtype: str) -> str:
    """Turn a requested dtype name into 'float32' or 'bfloat16'. Raises ModelError for any other."""
    if dtype != "auto":
        if dtype not in DTYPE_BYTES:
            raise ModelError(f"dtype {dtype!r} is not one of auto, float32, bfloat16")
        return dtype
    stored = str(folder.config.get("dtype") or folder.config.get("torch_dtype") or "float32").removeprefix("torch.")
    if stored not in DTYPE_BYTES:
        raise ModelError(f"the config of {folder.path} says {stored}, which is not served; choose float32 or bfloat16")
    return stored


def tensor_entries(folder: ModelFolder) -> dict[str, TensorEntry]:
    """Read the headers of all weight files. Raises ModelError for a damaged file."""
    entries: dict[str, TensorEntry] = {}
    for file in folder.weight_files:
        for name, value in json.loads(_header(file)).items():
            if name != "__metadata__":
                entries[name] = TensorEntry(file=file, dtype=value["dtype"], shape=tuple(value["shape"]))
    return entries


def _header(file: Path) -> bytes:
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(file.stat().st_size, 100_000_000):
            raise ModelError(f"{file} is not a safetensors file")
        return stream.read(length)


def _revision(folder: ModelFolder) -> str:
    """Hash the small files and, of each weight file, header, size and spread probes of its bytes (quick at any size)."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _HASHED_FILES:
        file = folder.path / name
        if file.is_file():
            digest.update(f"{name}:{file.stat().st_size}:".encode())
            digest.update(file.read_bytes())
    for file in folder.weight_files:
        header, num_bytes = _header(file), file.stat().st_size
        digest.update(f"{file.name}:{num_bytes}:".encode())
        digest.update(header)
        start = 8 + len(header)
        with file.open("rb") as stream:
            for i in range(_NUM_PROBES):
                stream.seek(start + max(0, num_bytes - start - _PROBE_BYTES) * i // (_NUM_PROBES - 1))
                digest.update(stream.read(_PROBE_BYTES))
    return digest.hexdigest()


def _eos_token_ids(folder: ModelFolder) -> tuple[int, ...]:
    ids = folder.generation_config.get("eos_token_id", folder.config.get("eos_token_id"))
    if ids is None:
        return ()
    return tuple(int(i) for i in ids) if isinstance(ids, list) else (int(ids),)


def _transformers_config(folder: ModelFolder) -> Mapping[str, Any]:
    """Ask transformers for a config whose field names differ between architectures."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(f"{folder.architecture} is not supported: {_first_line(error)}") from None
    names = (
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_size",
        "vocab_size",
        "max_position_embeddings",
        "num_hidden_layers",
    )
    return {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return value
