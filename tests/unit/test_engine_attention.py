"""Both attention plug-ins against a definition written in loops, on batches of every kind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brigade.core.errors import ConfigError
from brigade.core.step import Slice
from brigade.engine import native_build
from brigade.engine.attention import Attention, SdpaAttention
from brigade.engine.batch import pack
from brigade.engine.load import load_engine
from brigade.engine.native_attention import NativeAttention
from brigade.engine.native_build import NoCompiler, load_kernel
from brigade.engine.random_models import make_random_model

NUM_BLOCKS = 60
LAYER = 1
# (own tokens, context tokens) of each sequence
BATCHES = {
    "decode": [(1, 40), (1, 1), (1, 130)],
    "prefill": [(1, 0), (70, 0), (17, 0)],
    "chunks": [(16, 16), (33, 90), (1, 64), (5, 3)],
    "mixed": [(1, 70), (30, 0), (9, 25), (1, 0)],
}


def make_attention(kind: str, pool: Tensor) -> Attention:
    return SdpaAttention(pool) if kind == "sdpa" else NativeAttention(pool, num_threads=1)


def deal(lengths: list[tuple[int, int]], block_size_tokens: int) -> list[Slice]:
    """Slices with interleaved block tables."""
    free = list(range(NUM_BLOCKS))[::-1]
    free = free[::3] + free[1::3] + free[2::3]
    slices = []
    for own, context in lengths:
        table = [free.pop() for _ in range(-(-(own + context) // block_size_tokens))]
        slices.append(Slice(token_ids=[0] * own, num_context_tokens=context, block_table=table))
    return slices


def defined(query: Tensor, key: Tensor, value: Tensor, position: int, window: int, scale: float) -> Tensor:
    """Attention of one token [heads, dim] over a sequence's keys and values [positions, kv_heads, dim], in f64."""
    low = max(0, position + 1 - window) if window else 0
    group = query.shape[0] // key.shape[1]
    rows = []
    for head, row in enumerate(query.double()):
        scores = key[low : position + 1, head // group].double() @ row * scale
        rows.append(scores.softmax(0) @ value[low : position + 1, head // group].double())
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["sdpa", "native"])
@pytest.mark.parametrize("name", sorted(BATCHES))
@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim", "block_size"),
    [(4, 2, 16, 16), (12, 4, 64, 16), (3, 1, 20, 7), (2, 2, 80, 16)],
)
@torch.inference_mode()
def test_attention_equals_its_definition(
    kind: str, name: str, window: int, num_heads: int, num_kv_heads: int, head_dim: int, block_size: int
) -> None:
    """Any mix of prefill, chunks and decoding, grouped heads, odd sizes, with and without a window."""
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_BLOCKS, 2, 2, num_kv_heads, block_size, head_dim)
    pool = torch.randn(shape, generator=generator)
    slices = deal(BATCHES[name], block_size)
    batch = pack(slices, block_size_tokens=block_size, num_blocks=NUM_BLOCKS, vocab_size=1, device=pool.device)
    query = torch.randn(batch.num_tokens, num_heads, head_dim, generator=generator)
    # Views of a wider row, as the fused projection gives them.
    fused = torch.randn(batch.num_tokens, 2 * num_kv_heads + 1, head_dim, generator=generator)
    key, value = fused[:, :num_kv_heads], fused[:, num_kv_heads : 2 * num_kv_heads]
    before = pool.clone()
    out = make_attention(kind, pool).begin(batch)(LAYER, query, key, value, scale=0.3, window=window)

    assert torch.equal(pool[:, 0], before[:, 0]), "another layer was written"
    row = 0
    for item in slices:
        # [blocks, 2, kv_heads, block, dim] -> [2, positions, kv_heads, dim]
        kept = pool[list(item.block_table), LAYER].permute(1, 0, 3, 2, 4).flatten(1, 2)
        end = item.num_context_tokens + len(item.token_ids)
        own = slice(row, row + len(item.token_ids))
        assert torch.equal(kept[0, item.num_context_tokens : end], key[own])
        assert torch.equal(kept[1, item.num_context_tokens : end], value[own])
        for i in range(len(item.token_ids)):
            position = item.num_context_tokens + i
            expected = defined(query[row], kept[0], kept[1], position, window, 0.3)
            torch.testing.assert_close(out[row].double(), expected, atol=2e-5, rtol=1e-4)
            row += 1
    untouched = sorted(set(range(NUM_BLOCKS)) - {block for item in slices for block in item.block_table})
    assert torch.equal(pool[untouched], before[untouched])


@torch.inference_mode()
def test_bf16_rounds_only_at_the_border() -> None:
    """The kernel computes in f32: against f64 on the same bf16 inputs only the result's rounding is lost."""
    generator = torch.Generator().manual_seed(1)
    pool = torch.randn((NUM_BLOCKS, 2, 2, 2, 16, 64), generator=generator).bfloat16()
    slices = deal(BATCHES["mixed"], 16)
    batch = pack(slices, block_size_tokens=16, num_blocks=NUM_BLOCKS, vocab_size=1, device=pool.device)
    query = torch.randn(batch.num_tokens, 4, 64, generator=generator).bfloat16()
    fused = torch.randn(batch.num_tokens, 4, 64, generator=generator).bfloat16()
    out = NativeAttention(pool, num_threads=1).begin(batch)(0, query, fused[:, :2], fused[:, 2:], scale=0.125, window=0)
    row = 0
    for item in slices:
        kept = pool[list(item.block_table), 0].permute(1, 0, 3, 2, 4).flatten(1, 2)
        for i in range(len(item.token_ids)):
            expected = defined(query[row], kept[0], kept[1], item.num_context_tokens + i, 0, 0.125)
            torch.testing.assert_close(out[row].double(), expected, atol=1e-3, rtol=2**-8)
            row += 1


@torch.inference_mode()
def test_large_scores_do_not_overflow() -> None:
    """Scores of thousands leave the largest alone standing; the running maximum keeps the weights finite."""
    pool = torch.zeros((NUM_BLOCKS, 2, 2, 1, 16, 16))
    slices = deal([(1, 150)], 16)
    batch = pack(slices, block_size_tokens=16, num_blocks=NUM_BLOCKS, vocab_size=1, device=pool.device)
    table = list(slices[0].block_table)
    for position in range(150):
        pool[table[position // 16], 0, 0, 0, position % 16] = -100.0 + position
        pool[table[position // 16], 0, 1, 0, position % 16] = float(position)
    query, key = torch.full((1, 1, 16), 5.0), torch.full((1, 1, 16), -1000.0)
    out = NativeAttention(pool, num_threads=1).begin(batch)(0, query, key, key, scale=1.0, window=0)
    torch.testing.assert_close(out, torch.full((1, 1, 16), 149.0))
    assert math.isfinite(float(out.sum()))


def test_without_a_compiler_torch_attends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """'auto' falls back with a note for the log; 'native' refuses to start."""
    folder = make_random_model("llama", tmp_path)
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    engine = load_engine(folder, dtype="float32", device="cpu", num_blocks=2)
    assert engine.attention_name == "sdpa"
    assert any("g++" in note for note in engine.notes)
    with pytest.raises(ConfigError, match="g\\+\\+"):
        load_engine(folder, dtype="float32", device="cpu", num_blocks=2, attention="native")


def test_the_kernel_is_built_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start finds the library of the first; a folder that cannot be written is a reason, not a crash."""
    load_kernel(tmp_path / "cache")
    (built,) = (tmp_path / "cache").iterdir()
    stamp = built.stat().st_mtime_ns
    load_kernel(tmp_path / "cache")
    assert [file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()] == [stamp]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NoCompiler, match="cannot be written"):
        load_kernel(tmp_path / "file" / "cache")


def test_a_failing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error line of the compiler reaches the operator."""
    source = tmp_path / "broken.cpp"
    source.write_text("#error this machine is odd\n")
    monkeypatch.setattr(native_build, "_SOURCE", source)
    with pytest.raises(NoCompiler, match="this machine is odd"):
        load_kernel(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
