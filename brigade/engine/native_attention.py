"""The CPU attention plug-in: calls the compiled kernel on the tensors' memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from brigade.engine.attention import StepAttention
from brigade.engine.batch import StepBatch
from brigade.engine.native_build import load_kernel


class _AttendArgs(ctypes.Structure):
    """Mirrors paged_attention.cpp: same fields, same order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "out", "pool")),
        *((name, ctypes.c_void_p) for name in ("query_starts", "contexts", "tables")),
        *((name, ctypes.c_int64) for name in ("query_stride", "key_stride", "value_stride")),
        *((name, ctypes.c_int64) for name in ("block_stride", "layer_offset", "table_width")),
        *((name, ctypes.c_int64) for name in ("num_sequences", "num_heads", "num_kv_heads", "head_dim", "block_size")),
        *((name, ctypes.c_int64) for name in ("window", "is_bf16", "num_threads")),
        ("scale", ctypes.c_double),
    )


class NativeAttention:
    """Paged attention by the compiled kernel, f32 and bf16, any head size. Raises NoCompiler when it cannot be had."""

    name = "native"

    def __init__(self, pool: Tensor, *, num_threads: int) -> None:
        self._attend = load_kernel().brigade_attend
        self._attend.argtypes = (ctypes.POINTER(_AttendArgs),)
        self._attend.restype = ctypes.c_int
        self._pool = pool
        self._num_threads = num_threads

    def begin(self, batch: StepBatch) -> StepAttention:
        return _NativeStep(self._attend, self._pool, batch, self._num_threads)


class _NativeStep:
    def __init__(self, attend: Callable[[Any], int], pool: Tensor, batch: StepBatch, num_threads: int) -> None:
        self._attend = attend
        self._pool = pool  # the arrays behind the pointers live as long as this object
        self._batch = batch
        num_kv_heads, block_size, head_dim = pool.shape[3:]
        self._args = _AttendArgs(
            pool=pool.data_ptr(),
            query_starts=batch.query_starts.ctypes.data,
            contexts=batch.context_lengths.ctypes.data,
            tables=batch.block_tables.ctypes.data,
            block_stride=pool.stride(0),
            table_width=batch.block_tables.shape[1],
            num_sequences=batch.num_sequences,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            block_size=block_size,
            is_bf16=pool.dtype == torch.bfloat16,
            num_threads=num_threads,
        )

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int) -> Tensor:
        query, key, value = _dense_heads(query), _dense_heads(key), _dense_heads(value)
        assert query.dtype == key.dtype == value.dtype == self._pool.dtype
        if not key.shape[1:] == value.shape[1:] == (self._args.num_kv_heads, self._args.head_dim):
            raise ValueError(f"keys {tuple(key.shape)} and values {tuple(value.shape)} do not fit the pool")
        out = torch.empty(query.shape, dtype=query.dtype)
        args = self._args
        args.query, args.key, args.value, args.out = query.data_ptr(), key.data_ptr(), value.data_ptr(), out.data_ptr()
        args.query_stride, args.key_stride, args.value_stride = query.stride(0), key.stride(0), value.stride(0)
        args.layer_offset = layer * self._pool.stride(1)
        args.num_heads, args.window, args.scale = query.shape[1], window, scale
        if self._attend(ctypes.byref(args)):
            raise MemoryError("no memory for the attention kernel's buffers")
        return out


def _dense_heads(rows: Tensor) -> Tensor:
    """Only tokens may be strided: heads of one token lie side by side."""
    return rows if rows.stride(2) == 1 and rows.stride(1) == rows.shape[2] else rows.contiguous()
