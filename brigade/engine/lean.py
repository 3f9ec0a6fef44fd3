"""The lean forward of Llama, Mistral, Qwen2 and Qwen3: packed tokens in, logits of the sampled rows out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from brigade.engine.attention import Attention, StepAttention
from brigade.engine.batch import StepBatch
from brigade.engine.linear import Linear, LinearMaker
from brigade.engine.rope import RotaryTable
from brigade.engine.shape import LeanShape
from brigade.engine.weights import WeightReader


class Model(Protocol):
    """A model whose weights are loaded."""

    def forward(self, batch: StepBatch, attention: Attention) -> Tensor:
        """Compute all tokens, write their KV, and return the logits [number of samples, vocab_size] in f32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    input_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None  # [heads + kv_heads, head_dim]
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class LeanModel:
    """Weights and forward of a Llama-like decoder."""

    def __init__(self, shape: LeanShape, weights: WeightReader, linear: LinearMaker, rotary: RotaryTable) -> None:
        self._shape = shape
        self._rotary = rotary
        hidden = shape.hidden_size
        self._embedding = weights.take("model.embed_tokens.weight", shape.vocab_size, hidden)
        self._layers = [_load_layer(shape, weights, linear, i) for i in range(shape.num_layers)]
        self._final_norm = weights.take("model.norm.weight", hidden)
        head = self._embedding if shape.is_tied else weights.take("lm_head.weight", shape.vocab_size, hidden)
        self._head = linear.make(head)

    def forward(self, batch: StepBatch, attention: Attention) -> Tensor:
        """Compute all tokens, write their KV, and return the logits [number of samples, vocab_size] in f32."""
        residual = F.embedding(batch.token_ids, self._embedding)
        cos, sin = self._rotary.rows(batch.positions)
        step = attention.begin(batch)
        eps, width = self._shape.norm_eps, (self._shape.hidden_size,)
        for i, layer in enumerate(self._layers):
            normed = F.rms_norm(residual, width, layer.input_norm, eps)
            residual = residual.add_(self._attend(i, layer, normed, cos, sin, step))
            normed = F.rms_norm(residual, width, layer.mlp_norm, eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            residual = residual.add_(layer.down(F.silu(gate).mul_(up)))
        sampled = F.rms_norm(residual[batch.sampled_rows], width, self._final_norm, eps)
        return self._head(sampled).float()

    def _attend(self, i: int, layer: _Layer, normed: Tensor, cos: Tensor, sin: Tensor, step: StepAttention) -> Tensor:
        shape = self._shape
        num_rotated = shape.num_heads + shape.num_kv_heads
        heads = layer.qkv(normed).view(len(normed), num_rotated + shape.num_kv_heads, shape.head_dim)
        rotated = heads[:, :num_rotated]
        if layer.qk_norm is not None:
            rotated = F.rms_norm(rotated, (shape.head_dim,), None, shape.norm_eps).mul_(layer.qk_norm)
        rotated = self._rotary.apply(rotated, cos, sin)
        out = step(
            i,
            rotated[:, : shape.num_heads],
            rotated[:, shape.num_heads :],
            heads[:, num_rotated:],
            scale=shape.head_dim**-0.5,
            window=shape.windows[i],
        )
        return layer.output(out.view(len(normed), -1))


def _load_layer(shape: LeanShape, weights: WeightReader, linear: LinearMaker, i: int) -> _Layer:
    prefix, hidden, dim = f"model.layers.{i}", shape.hidden_size, shape.head_dim
    query_rows, kv_rows = shape.num_heads * dim, shape.num_kv_heads * dim
    qkv = [("q", query_rows), ("k", kv_rows), ("v", kv_rows)]
    gate_up = [(f"{prefix}.mlp.{name}_proj", shape.intermediate_size) for name in ("gate", "up")]
    qk_norm = None
    if shape.has_qk_norm:
        query_norm = weights.take(f"{prefix}.self_attn.q_norm.weight", dim)
        key_norm = weights.take(f"{prefix}.self_attn.k_norm.weight", dim)
        qk_norm = torch.cat((query_norm.expand(shape.num_heads, dim), key_norm.expand(shape.num_kv_heads, dim)))

    def stacked(names: list[tuple[str, int]], has_bias: bool, columns: int) -> Linear:
        weight = weights.take_stacked([(f"{name}.weight", rows) for name, rows in names], columns)
        bias = weights.take_stacked([(f"{name}.bias", rows) for name, rows in names]) if has_bias else None
        return linear.make(weight, bias)

    return _Layer(
        input_norm=weights.take(f"{prefix}.input_layernorm.weight", hidden),
        qkv=stacked([(f"{prefix}.self_attn.{n}_proj", rows) for n, rows in qkv], shape.has_qkv_bias, hidden),
        qk_norm=qk_norm,
        output=stacked([(f"{prefix}.self_attn.o_proj", hidden)], shape.has_output_bias, query_rows),
        mlp_norm=weights.take(f"{prefix}.post_attention_layernorm.weight", hidden),
        gate_up=stacked(gate_up, shape.has_mlp_bias, hidden),
        down=stacked([(f"{prefix}.mlp.down_proj", hidden)], shape.has_mlp_bias, shape.intermediate_size),
    )
