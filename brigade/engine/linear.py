"""The linear plug-in: how `x @ weight.T + bias` is computed. The only place that may use CPU-only matrix kernels.

`torch`   F.linear, on every device.
`onednn`  weights re-ordered once into oneDNN's blocked layout (measured 1.2-2.2 times F.linear's speed on AMD CPUs for
          f32 and for few rows). The two operators are private to torch, so every packed weight proves itself at load.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from brigade.core.errors import ConfigError


class Linear(Protocol):
    """One linear layer."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Map rows [T, in_features] to [T, out_features]."""


class LinearMaker(Protocol):
    """Makes linear layers of one kind. `name` says which, `note` why it is not the one first asked for."""

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str | None: ...

    def make(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Wrap weight [out_features, in_features] and bias [out_features]; the maker may keep or re-order them."""


class PlainLinear:
    """F.linear on the weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self._weight, self._bias)


class PackedLinear:
    """oneDNN's linear on a re-ordered weight."""

    def __init__(self, packed: Tensor, bias: Tensor | None) -> None:
        self._packed, self._bias = packed, bias
        self._apply = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, rows: Tensor) -> Tensor:
        result: Tensor = self._apply(rows, self._packed, self._bias, "none", [], "")
        return result


class TorchLinearMaker:
    """Makes plain layers."""

    name = "torch"

    def __init__(self, note: str | None = None) -> None:
        self.note = note

    def make(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        return PlainLinear(weight, bias)


class OneDnnLinearMaker:
    """Makes packed layers; one whose result differs from F.linear's becomes a plain layer, and `note` says so."""

    name = "onednn"

    def __init__(self) -> None:
        self.note: str | None = None

    def make(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        packed = PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias)
        if not _agrees(packed, weight, bias):
            self.note = (
                f"oneDNN's linear differs from F.linear for a weight of {tuple(weight.shape)}; F.linear computes it"
            )
            return PlainLinear(weight, bias)
        return packed


def make_linear_maker(kind: str, *, dtype: torch.dtype, device: torch.device) -> LinearMaker:
    """Return the maker named `kind` ('auto', 'onednn', 'torch'). Raises ConfigError when it cannot work here."""
    if kind not in ("auto", "onednn", "torch"):
        raise ConfigError(f"linear plug-in {kind!r} is not one of auto, onednn, torch")
    if kind == "torch" or (kind == "auto" and device.type != "cpu"):
        return TorchLinearMaker()
    reason = "oneDNN's linear needs the CPU" if device.type != "cpu" else _missing(dtype)
    if reason is None:
        return OneDnnLinearMaker()
    if kind == "onednn":
        raise ConfigError(reason)
    return TorchLinearMaker(note=f"{reason}; F.linear is used")


def _missing(dtype: torch.dtype) -> str | None:
    """Say why oneDNN's packed linear cannot be used on this CPU, or None when it works."""
    try:
        weight = (torch.arange(96, dtype=torch.float32).view(8, 12) % 7 - 3).to(dtype)
        packed = PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, None), None)
        return None if _agrees(packed, weight, None) else "oneDNN's packed linear computes wrong numbers here"
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"torch {torch.__version__} has no oneDNN packed linear for {dtype} here ({type(error).__name__})"


def _agrees(packed: PackedLinear, weight: Tensor, bias: Tensor | None) -> bool:
    """Compare one and three rows with F.linear in f32; bf16 may differ by its own rounding."""
    width = weight.shape[1]
    rows = ((torch.arange(3 * width) * 37 % 101).to(torch.float32).view(3, width) / 50 - 1).to(weight.dtype)
    # A slice of the outputs is enough to see a wrong layout and keeps loading a large vocabulary quick.
    some = slice(0, min(256, weight.shape[0]))
    expected = F.linear(rows.float(), weight[some].float(), None if bias is None else bias[some].float())
    allowed = (1e-4 if weight.dtype == torch.float32 else 2e-2) * (1 + expected.abs().max().item())
    return all((packed(rows[:n])[:, some].float() - expected[:n]).abs().max().item() <= allowed for n in (1, 3))
