"""Takes tensors out of a folder's safetensors files, checked against the shapes that the forward expects."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from brigade.core.errors import ModelError
from brigade.engine.folder import ModelFolder, tensor_entries


class WeightReader:
    """Reads named tensors in one dtype onto one device. A context manager: the files stay open inside it."""

    def __init__(self, folder: ModelFolder, *, dtype: torch.dtype, device: torch.device) -> None:
        self._folder = folder
        self._entries = tensor_entries(folder)
        self._dtype = dtype
        self._device = device
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def take(self, name: str, *shape: int) -> Tensor:
        """Return the tensor `name` of exactly `shape`. Raises ModelError when it is missing or has another shape."""
        entry = self._entries.get(name)
        if entry is None:
            raise ModelError(f"the weights in {self._folder.path} lack the tensor {name}")
        if entry.shape != shape:
            raise ModelError(f"the tensor {name} in {self._folder.path} has shape {entry.shape}, expected {shape}")
        if entry.dtype not in ("F32", "BF16", "F16"):
            raise ModelError(
                f"the tensor {name} in {self._folder.path} is stored as {entry.dtype}, which is not served"
            )
        if entry.file not in self._files:
            self._files[entry.file] = self._stack.enter_context(safe_open(str(entry.file), framework="pt"))
        tensor: Tensor = self._files[entry.file].get_tensor(name)
        return tensor.to(device=self._device, dtype=self._dtype)

    def take_stacked(self, names: Sequence[tuple[str, int]], *columns: int) -> Tensor:
        """Return the tensors of (name, rows) one below the other: [sum of rows, *columns]."""
        return torch.cat([self.take(name, rows, *columns) for name, rows in names])
