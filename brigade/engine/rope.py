"""Rotary embedding: tables of cosine and sine per position, and their application to packed heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from brigade.engine.shape import RopeShape


class RotaryTable:
    """Cosine and sine of every position, [max_positions, head_dim]; the sine's first half is negated."""

    def __init__(self, shape: RopeShape, *, dtype: torch.dtype, device: torch.device) -> None:
        frequencies, factor = inverse_frequencies(shape)
        angles = torch.outer(torch.arange(shape.max_positions, dtype=torch.float32), frequencies)
        cos, sin = angles.cos() * factor, angles.sin() * factor
        self._half = shape.head_dim // 2
        self._cos = torch.cat((cos, cos), dim=-1).to(device=device, dtype=dtype)
        self._sin = torch.cat((-sin, sin), dim=-1).to(device=device, dtype=dtype)

    def rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of packed positions [T] as [T, 1, head_dim]."""
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)

    def apply(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate heads [T, any number of heads, head_dim]; the result is contiguous."""
        return (heads * cos).addcmul_(heads.roll(self._half, -1), sin)


def inverse_frequencies(shape: RopeShape) -> tuple[Tensor, float]:
    """Return the inverse frequencies [head_dim / 2] and the factor on cosine and sine."""
    parameters = shape.parameters
    base, kind = float(parameters["rope_theta"]), parameters["rope_type"]
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).to(torch.float32) / shape.head_dim
    plain = 1.0 / (base**exponents)
    if kind == "linear":
        return plain / float(parameters["factor"]), 1.0
    if kind == "llama3":
        return _llama3(plain, parameters), 1.0
    if kind == "yarn":
        return _yarn(base**exponents, shape)
    return plain, 1.0


def _llama3(plain: Tensor, parameters: Mapping[str, Any]) -> Tensor:
    """Divide long wavelengths by the factor, keep short ones, interpolate between."""
    factor = float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    original = float(parameters["original_max_position_embeddings"])
    wavelength = 2 * math.pi / plain
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    scaled = torch.where(wavelength > original / low, plain / factor, between)
    return torch.where(wavelength < original / high, plain, scaled)


def _yarn(powers: Tensor, shape: RopeShape) -> tuple[Tensor, float]:
    """Interpolate slow rotations, keep fast ones, with a linear ramp between; scale attention by the stretch."""
    parameters = shape.parameters
    original = float(parameters["original_max_position_embeddings"])
    factor = float(parameters.get("factor") or shape.max_positions / original)
    base, dim = float(parameters["rope_theta"]), shape.head_dim

    def dimension_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = dimension_of(float(parameters.get("beta_fast") or 32))
    high = dimension_of(float(parameters.get("beta_slow") or 1))
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a ramp of no width would divide by zero
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    frequencies = (1.0 / (factor * powers)) * ramp + (1.0 / powers) * (1 - ramp)
    attention_factor = parameters.get("attention_factor")
    if attention_factor is None:
        mscale, mscale_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
        attention_factor = _stretch(factor, 1.0)
        if mscale and mscale_all:
            attention_factor = _stretch(factor, float(mscale)) / _stretch(factor, float(mscale_all))
    return frequencies, float(attention_factor)


def _stretch(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
