"""Loads a model folder into an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from brigade.core.errors import ConfigError
from brigade.core.step import ModelInfo
from brigade.engine.attention import Attention, SdpaAttention
from brigade.engine.engine import TorchEngine
from brigade.engine.folder import ModelFolder, block_bytes, model_info, open_folder
from brigade.engine.foreign import load_foreign
from brigade.engine.lean import LeanModel, Model
from brigade.engine.linear import LinearMaker, make_linear_maker
from brigade.engine.native_attention import NativeAttention
from brigade.engine.native_build import NoCompiler
from brigade.engine.rope import RotaryTable
from brigade.engine.shape import lean_shape
from brigade.engine.weights import WeightReader

__all__ = ["block_bytes", "load_engine", "model_info", "resolve_device"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(device: str) -> str:
    """Return the device that `auto` stands for here; any other name is its own."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@torch.inference_mode()
def load_engine(
    model_path: str | Path,
    *,
    dtype: str,
    device: str,
    num_blocks: int,
    block_size_tokens: int = 16,
    pool: memoryview | None = None,
    num_threads: int = 1,
    linear: str = "auto",
    attention: str = "auto",
) -> TorchEngine:
    """Load the model and lay its KV blocks over `pool` (num_blocks * block_bytes, writable; CPU only) or own memory.

    Raises ModelError for a folder that cannot be served, ConfigError for a setting that cannot work here. Sets torch's
    thread count for the whole process.
    """
    torch_device = torch.device(device)
    if torch_device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device} was asked for and torch sees no CUDA device")
    if pool is not None and torch_device.type != "cpu":
        raise ConfigError(f"a pool in host memory cannot serve device {device}")
    torch.set_num_threads(num_threads)
    info = model_info(model_path, dtype)
    folder = open_folder(model_path)
    maker = make_linear_maker(linear, dtype=_DTYPES[info.dtype], device=torch_device)
    blocks = _pool_tensor(info, num_blocks, block_size_tokens, pool, torch_device)
    attention_plugin, attention_note = _make_attention(attention, blocks, num_threads)
    model = _load_model(folder, info, maker, lambda own: _make_attention(attention, own, num_threads)[0], torch_device)
    return TorchEngine(
        info=info,
        model=model,
        pool=blocks,
        attention=attention_plugin,
        linear_name=maker.name,
        notes=tuple(note for note in (maker.note, attention_note) if note is not None),
    )


def _load_model(
    folder: ModelFolder,
    info: ModelInfo,
    maker: LinearMaker,
    make_attention: Callable[[Tensor], Attention],
    device: torch.device,
) -> Model:
    dtype = _DTYPES[info.dtype]
    if not folder.is_lean:
        return load_foreign(folder, info, linear=maker, make_attention=make_attention, dtype=dtype, device=device)
    shape = lean_shape(folder)
    with WeightReader(folder, dtype=dtype, device=device) as weights:
        return LeanModel(shape, weights, maker, RotaryTable(shape.rope, dtype=dtype, device=device))


def _make_attention(kind: str, pool: Tensor, num_threads: int) -> tuple[Attention, str | None]:
    """Return the attention plug-in named `kind` and, when it is not the fastest, why."""
    if kind not in ("auto", "native", "sdpa"):
        raise ConfigError(f"attention plug-in {kind!r} is not one of auto, native, sdpa")
    if kind == "sdpa" or (kind == "auto" and pool.device.type != "cpu"):
        return SdpaAttention(pool), None
    if pool.device.type != "cpu":
        raise ConfigError("the native attention kernel needs the CPU")
    try:
        return NativeAttention(pool, num_threads=num_threads), None
    except NoCompiler as error:
        if kind == "native":
            raise ConfigError(f"the native attention kernel cannot be had: {error}") from None
        return SdpaAttention(pool), f"the native attention kernel cannot be had: {error}; torch's attention is used"


def _pool_tensor(
    info: ModelInfo, num_blocks: int, block_size_tokens: int, pool: memoryview | None, device: torch.device
) -> Tensor:
    """View or make the pool as [num_blocks, layers, 2, kv_heads, block_size_tokens, head_dim]."""
    shape = (num_blocks, info.num_layers, 2, info.num_kv_heads, block_size_tokens, info.head_dim)
    if pool is None:
        # Zeroed, so that padding read under a mask is a number.
        return torch.zeros(shape, dtype=_DTYPES[info.dtype], device=device)
    needed = num_blocks * block_bytes(info, block_size_tokens)
    if pool.nbytes != needed or pool.readonly:
        raise ConfigError(f"the pool needs {needed} writable bytes and has {pool.nbytes}")
    return torch.frombuffer(pool, dtype=_DTYPES[info.dtype]).view(shape)
