"""Makes model folders with random weights: for tests and measurements that need a shape, not sense. Offline, seeded.

`python -m brigade.engine.random_models ARCH DIR [--size tiny|small] [--dtype …] [--seed N]`

Weights are wide enough that logits are well apart and greedy answers wander. The tokenizer knows all bytes and made-up
merges, so that every id of the vocabulary is text; Llama and Mistral put a beginning-of-sequence token first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>")
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSize:
    """The size of a random model."""

    hidden_size: int = 64
    intermediate_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 16
    vocab_size: int = 512
    max_model_len_tokens: int = 512
    is_tied: bool = False
    dtype: str = "float32"


TINY = RandomSize()
SMALL = RandomSize(
    hidden_size=768,
    intermediate_size=2304,
    num_layers=12,
    num_heads=12,
    num_kv_heads=4,
    head_dim=64,
    vocab_size=32000,
    max_model_len_tokens=4096,
    is_tied=True,
    dtype="bfloat16",
)
SIZES: Mapping[str, RandomSize] = {"tiny": TINY, "small": SMALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What is special about an architecture."""

    architecture: str
    model_type: str
    config: Mapping[str, Any]
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    has_bos: bool = False


FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(
        architecture="LlamaForCausalLM",
        model_type="llama",
        config={"attention_bias": False, "mlp_bias": False},
        has_bos=True,
    ),
    "mistral": _Family(
        architecture="MistralForCausalLM", model_type="mistral", config={"sliding_window": None}, has_bos=True
    ),
    "qwen2": _Family(
        architecture="Qwen2ForCausalLM",
        model_type="qwen2",
        config={"use_sliding_window": False, "sliding_window": None},
        has_qkv_bias=True,
    ),
    "qwen3": _Family(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        config={"use_sliding_window": False, "sliding_window": None, "attention_bias": False},
        has_qk_norm=True,
    ),
    # Runs by its own forward: norms after attention and MLP, and over all heads at once.
    "olmo2": _Family(architecture="Olmo2ForCausalLM", model_type="olmo2", config={"attention_bias": False}),
}


def make_random_model(
    architecture: str,
    folder: str | Path,
    *,
    size: RandomSize = TINY,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder for a family name ('llama', 'qwen3', …) and return it. `config` replaces config fields."""
    family, path = FAMILIES[architecture], Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    eos, im_end = 256, 258
    fields: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "num_key_value_heads": size.num_kv_heads,
        "head_dim": size.head_dim,
        "vocab_size": size.vocab_size,
        "max_position_embeddings": size.max_model_len_tokens,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": size.is_tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "torch_dtype": size.dtype,
        "bos_token_id": 259 if family.has_bos else None,
        "eos_token_id": eos,
        "pad_token_id": None,
        **family.config,
        **(config or {}),
    }
    _write_json(path / "config.json", fields)
    generation = {"eos_token_id": [eos, im_end], "bos_token_id": fields["bos_token_id"], "do_sample": False}
    _write_json(path / "generation_config.json", generation)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor.to(getattr(torch, size.dtype)).contiguous() for name, tensor in _weights(family, size, generator)
    }
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(path, family, size)
    return path


def _weights(family: _Family, size: RandomSize, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors. Layers write more into the residual than the embedding does, so tied models do not echo."""
    hidden, dim = size.hidden_size, size.head_dim
    query_rows, kv_rows = size.num_heads * dim, size.num_kv_heads * dim

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
        return normal(rows, columns, std=gain / math.sqrt(columns))

    def norm(width: int) -> Tensor:
        return 1.0 + normal(width, std=0.1)

    yield "model.embed_tokens.weight", normal(size.vocab_size, hidden, std=0.2)
    for i in range(size.num_layers):
        prefix = f"model.layers.{i}"
        for name, rows in (("q", query_rows), ("k", kv_rows), ("v", kv_rows)):
            yield f"{prefix}.self_attn.{name}_proj.weight", matrix(rows, hidden, gain=1.5)
            if family.has_qkv_bias:
                yield f"{prefix}.self_attn.{name}_proj.bias", normal(rows, std=0.2)
        yield f"{prefix}.self_attn.o_proj.weight", matrix(hidden, query_rows, gain=1.5)
        yield f"{prefix}.mlp.gate_proj.weight", matrix(size.intermediate_size, hidden)
        yield f"{prefix}.mlp.up_proj.weight", matrix(size.intermediate_size, hidden)
        yield f"{prefix}.mlp.down_proj.weight", matrix(hidden, size.intermediate_size, gain=1.5)
        yield f"{prefix}.post_attention_layernorm.weight", norm(hidden)
        if family.model_type == "olmo2":
            yield f"{prefix}.post_feedforward_layernorm.weight", norm(hidden)
            yield f"{prefix}.self_attn.q_norm.weight", norm(query_rows)
            yield f"{prefix}.self_attn.k_norm.weight", norm(kv_rows)
        else:
            yield f"{prefix}.input_layernorm.weight", norm(hidden)
        if family.has_qk_norm:
            yield f"{prefix}.self_attn.q_norm.weight", norm(dim)
            yield f"{prefix}.self_attn.k_norm.weight", norm(dim)
    yield "model.norm.weight", norm(hidden)
    if not size.is_tied:
        yield "lm_head.weight", matrix(size.vocab_size, hidden, gain=2.0)


def _write_tokenizer(path: Path, family: _Family, size: RandomSize) -> None:
    """A byte-level BPE of exactly vocab_size ids: bytes, special tokens, then joined letters."""
    if size.vocab_size < 256 + len(SPECIAL_TOKENS):
        raise ValueError(f"a vocabulary of {size.vocab_size} has no room for all bytes and the special tokens")
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for token in SPECIAL_TOKENS:
        vocabulary[token] = len(vocabulary)
    merges = []
    for left, right in _joins():
        if len(vocabulary) == size.vocab_size:
            break
        vocabulary[left + right] = len(vocabulary)
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    if family.has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    tokenizer.save(str(path / "tokenizer.json"))
    template = _CHAT_TEMPLATE if family.has_bos else _CHAT_TEMPLATE.removeprefix("{{ bos_token }}")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "bos_token": "<s>" if family.has_bos else None,
        "model_max_length": size.max_model_len_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    _write_json(path / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not None})


def _joins() -> Iterator[tuple[str, str]]:
    """Yield pairs of known pieces to join: two letters (a word start counts as one), then three, then four."""
    letters = ["Ġ", *"etaoinshrdlucmfwypvbgkjqxz"]
    pieces = letters
    for _ in range(3):
        grown = [(piece, letter) for piece, letter in itertools.product(pieces, letters) if letter != "Ġ"]
        yield from grown
        pieces = [piece + letter for piece, letter in grown]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Make one folder from the command line."""
    parser = argparse.ArgumentParser(description="Make a model folder with random weights.")
    parser.add_argument("architecture", choices=sorted(FAMILIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="how weights are stored (default: by size)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    size = SIZES[args.size]
    make_random_model(
        args.architecture, args.folder, size=replace(size, dtype=args.dtype or size.dtype), seed=args.seed
    )
    print(args.folder)


if __name__ == "__main__":
    main()
