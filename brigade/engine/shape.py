"""What the lean forward must know of a model: its sizes, its switches, its rotary embedding, read from config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brigade.core.errors import ModelError
from brigade.engine.folder import ModelFolder

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeShape:
    """Rotary embedding: `parameters` are the config's own, with `rope_type` and `rope_theta` always present."""

    head_dim: int
    max_positions: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanShape:
    """Sizes and switches of a Llama-like decoder. `windows[i]` is layer i's attention window in tokens, 0 = all."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    is_tied: bool
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool
    windows: tuple[int, ...]
    rope: RopeShape


def lean_shape(folder: ModelFolder) -> LeanShape:
    """Read the shape of a lean architecture. Raises ModelError for what the lean forward does not compute."""
    config, architecture = folder.config, folder.architecture
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{architecture} with activation {config['hidden_act']!r} is not supported")
    if config.get("quantization_config"):
        raise ModelError(f"{folder.path} holds quantized weights, which are not supported")
    try:
        num_heads, hidden_size = int(config["num_attention_heads"]), int(config["hidden_size"])
        num_layers = int(config["num_hidden_layers"])
        # Qwen2 always has these biases, whatever its config says; Llama and Qwen3 have a switch.
        has_attention_bias = bool(config.get("attention_bias", False)) and architecture != "MistralForCausalLM"
        shape = LeanShape(
            hidden_size=hidden_size,
            intermediate_size=int(config["intermediate_size"]),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
            head_dim=int(config.get("head_dim") or hidden_size // num_heads),
            vocab_size=int(config["vocab_size"]),
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            is_tied=bool(config.get("tie_word_embeddings", False)),
            has_qkv_bias=has_attention_bias or architecture == "Qwen2ForCausalLM",
            has_output_bias=has_attention_bias and architecture != "Qwen2ForCausalLM",
            has_mlp_bias=bool(config.get("mlp_bias", False)) and architecture == "LlamaForCausalLM",
            has_qk_norm=architecture == "Qwen3ForCausalLM",
            windows=_windows(config, architecture, num_layers),
            rope=_rope(config, architecture, hidden_size // num_heads),
        )
    except KeyError as error:
        raise ModelError(f"the config of {folder.path} has no {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise ModelError(f"the config of {folder.path} has a value of the wrong type: {error}") from None
    if shape.num_heads % shape.num_kv_heads:
        raise ModelError(f"the config of {folder.path} has {num_heads} heads over {shape.num_kv_heads} KV heads")
    return shape


def _windows(config: Mapping[str, Any], architecture: str, num_layers: int) -> tuple[int, ...]:
    window = int(config.get("sliding_window") or 0)
    if architecture == "LlamaForCausalLM" or not window:
        return (0,) * num_layers
    if architecture == "MistralForCausalLM":
        return (window,) * num_layers
    if not config.get("use_sliding_window", False):
        return (0,) * num_layers
    layer_types = config.get("layer_types")
    if layer_types is None:
        first = int(config.get("max_window_layers", num_layers))
        layer_types = ["sliding_attention" if i >= first else "full_attention" for i in range(num_layers)]
    return tuple(window if layer_type == "sliding_attention" else 0 for layer_type in layer_types)


def _rope(config: Mapping[str, Any], architecture: str, default_head_dim: int) -> RopeShape:
    # Newer configs hold everything in rope_parameters; older ones keep the base apart and name the kind "type".
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    parameters["rope_type"] = parameters.get("rope_type") or parameters.get("type") or "default"
    parameters["rope_theta"] = float(parameters.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    if parameters["rope_type"] not in _ROPE_TYPES:
        raise ModelError(f"{architecture} with rotary embedding {parameters['rope_type']!r} is not supported")
    if float(parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelError(f"{architecture} with a partial rotary embedding is not supported")
    max_positions = int(config["max_position_embeddings"])
    parameters.setdefault("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if parameters["original_max_position_embeddings"] is None:
        parameters["original_max_position_embeddings"] = max_positions
    return RopeShape(
        head_dim=int(config.get("head_dim") or default_head_dim), max_positions=max_positions, parameters=parameters
    )
