"""Loading: what a folder says before its weights are read, the pool's memory, and one sentence for each thing wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import GREEDY, answer, load_tiny, make_prompt
from safetensors.torch import load_file, save_file

from brigade.core.errors import ConfigError, ModelError
from brigade.core.step import SampleRequest, Slice
from brigade.engine import linear
from brigade.engine.folder import block_bytes, model_info
from brigade.engine.linear import make_linear_maker
from brigade.engine.load import load_engine
from brigade.engine.random_models import FAMILIES, SMALL, TINY, make_random_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("llama", tmp_path_factory.mktemp("models") / "first")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "spoiled"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_model_info_without_weights(original: Path) -> None:
    """Everything that the rest of the system needs stands in the small files."""
    info = model_info(original)
    assert (info.name, info.path, info.architecture) == ("first", str(original), "LlamaForCausalLM")
    assert (info.dtype, info.vocab_size, info.max_model_len_tokens) == ("float32", 512, 512)
    assert (info.num_layers, info.num_kv_heads, info.head_dim) == (2, 2, 16)
    assert info.eos_token_ids == (256, 258), "generation_config's list wins over config's single id"
    assert block_bytes(info, 16) == 2 * 2 * 2 * 16 * 16 * 4
    assert block_bytes(model_info(original, "bfloat16"), 16) == 2 * 2 * 2 * 16 * 16 * 2


def test_model_info_needs_no_torch(original: Path) -> None:
    """A process without torch may ask."""
    code = (
        "import sys; from brigade.engine.folder import model_info; "
        f"model_info({str(original)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_info_of_the_engine_equals_info_of_the_folder(original: Path) -> None:
    """What was announced is what is served."""
    engine = load_tiny(original, dtype="bfloat16", num_blocks=3)
    assert engine.model == model_info(original, "bfloat16")
    assert engine.block_bytes == block_bytes(engine.model, engine.block_size_tokens)
    assert engine.num_blocks == 3


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_revision_follows_the_small_files(folder: Path, file: str) -> None:
    """KV of one revision must never be read under another."""
    before = model_info(folder).revision
    path = folder / file
    path.write_text(path.read_text() + "\n")
    assert model_info(folder).revision != before


def test_the_revision_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    """Other weights of the same shapes are another revision; the same bytes elsewhere are the same."""
    before = model_info(folder).revision
    assert model_info(Path(shutil.copytree(folder, tmp_path / "copy"))).revision == before
    make_random_model("llama", folder, seed=1)
    assert model_info(folder).revision != before


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_random_models_are_seeded_and_fit_their_tokenizer(tmp_path: Path, family: str) -> None:
    """The same seed makes the same bytes, and every id is text or a special token."""
    from tokenizers import Tokenizer

    first = make_random_model(family, tmp_path / "a", seed=4)
    second = make_random_model(family, tmp_path / "b", seed=4)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    tokenizer = Tokenizer.from_file(str(first / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == TINY.vocab_size
    text = "The queen's Zürich 東京 🙂\n<|im_end|>"
    ids = tokenizer.encode(text).ids
    assert (ids[0] == tokenizer.token_to_id("<s>")) == FAMILIES[family].has_bos
    assert tokenizer.decode(ids, skip_special_tokens=False).removeprefix("<s>") == text


def test_small_is_the_measured_size() -> None:
    """107 million parameters, so that measurements can be compared."""
    hidden, dim = SMALL.hidden_size, SMALL.head_dim
    attention = hidden * dim * (2 * SMALL.num_heads + 2 * SMALL.num_kv_heads) + 2 * dim
    layer = attention + 3 * hidden * SMALL.intermediate_size + 2 * hidden
    assert SMALL.vocab_size * hidden + SMALL.num_layers * layer + hidden == pytest.approx(107.2e6, rel=1e-3)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        load_tiny(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "sentence"), [("config.json", "no config.json"), ("model.safetensors", "no .safetensors weights")]
)
def test_missing_files(folder: Path, file: str, sentence: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=sentence):
        load_tiny(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": []}, "names no architecture"),
        ({"architectures": ["NobodyForCausalLM"], "model_type": "nobody"}, "NobodyForCausalLM is not supported"),
        ({"num_hidden_layers": 3}, "lack the tensor model.layers.2"),
        ({"intermediate_size": 96}, "has shape"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"num_key_value_heads": 3}, "4 heads over 3 KV heads"),
        ({"hidden_size": "wide"}, "wrong type"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_config_that_does_not_fit(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    """One sentence that names the fault."""
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=sentence):
        load_tiny(folder)


def test_a_config_without_a_needed_field(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["vocab_size"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="vocab_size"):
        load_tiny(folder)


def test_broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_tiny(folder)


def test_damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_tiny(folder)


def test_a_missing_tensor(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.down_proj.weight"))
    with pytest.raises(ModelError, match=r"lack the tensor model\.layers\.1\.mlp\.down_proj\.weight"):
        load_tiny(folder)


def test_a_tensor_of_another_type(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int32)

    edit_weights(folder, spoil)
    with pytest.raises(ModelError, match="stored as I32"):
        load_tiny(folder)


@pytest.mark.parametrize("dtype", ["float16", "fp32", ""])
def test_a_wrong_dtype_name(folder: Path, dtype: str) -> None:
    with pytest.raises(ModelError, match="not one of auto, float32, bfloat16"):
        load_tiny(folder, dtype=dtype)


def test_auto_is_the_configs_dtype(folder: Path) -> None:
    """A stored float16 is not silently served as something else."""
    edit_config(folder, torch_dtype="bfloat16")
    assert model_info(folder).dtype == "bfloat16"
    edit_config(folder, torch_dtype="float16")
    with pytest.raises(ModelError, match="choose float32 or bfloat16"):
        model_info(folder)


def test_sharded_weights(folder: Path) -> None:
    """An index over several files loads as one file does; a missing shard is named."""
    expected = answer(load_tiny(folder), [make_prompt(20)], 6)[0].output
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {name: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert answer(load_tiny(folder), [make_prompt(20)], 6)[0].output == expected
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks model-00002-of-00002"):
        load_tiny(folder)


def test_kv_is_written_straight_into_the_given_memory(original: Path) -> None:
    """The pool's bytes are the arena's: block-major, and a block copied to another engine continues the sequence."""
    info = model_info(original)
    memory = bytearray(4 * block_bytes(info, 16))
    first = load_engine(original, dtype="float32", device="cpu", num_blocks=4, pool=memoryview(memory))
    second = load_tiny(original, num_blocks=9)
    prompt = make_prompt(30)
    expected = answer(second, [prompt], 1)[0].output
    request = SampleRequest(params=GREEDY, index=0)
    first.step([Slice(token_ids=prompt[:-1], num_context_tokens=0, block_table=[2, 0])])
    size = first.block_bytes
    assert not any(memory[size : 2 * size]), "a block outside the table was written"
    for source, target in ((2, 8), (0, 3)):
        block = memory[source * size : (source + 1) * size]
        copied = bytearray(size)
        first.read_block(source, memoryview(copied))
        assert copied == block
        second.write_block(target, memoryview(bytes(block)))
    (drawn,) = second.step([Slice(token_ids=prompt[-1:], num_context_tokens=29, block_table=[8, 3], sample=request)])
    assert drawn is not None
    assert [drawn.token_id] == expected


def test_close_lets_go_of_the_memory(original: Path) -> None:
    """After close no view is left, so the arena can be unmapped."""
    memory = bytearray(2 * block_bytes(model_info(original), 16))
    engine = load_engine(original, dtype="float32", device="cpu", num_blocks=2, pool=memoryview(memory))
    engine.step([Slice(token_ids=[1, 2], num_context_tokens=0, block_table=[0])])
    with pytest.raises(BufferError):
        memory.append(0)
    engine.close()
    memory.append(0)


@pytest.mark.parametrize("num_bytes", [0, 100])
def test_a_pool_of_the_wrong_size(original: Path, num_bytes: int) -> None:
    with pytest.raises(ConfigError, match="the pool needs"):
        load_engine(original, dtype="float32", device="cpu", num_blocks=2, pool=memoryview(bytearray(num_bytes)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"linear": "fast"}, "auto, onednn, torch"), ({"attention": "flash"}, "auto, native, sdpa")],
    ids=["linear", "attention"],
)
def test_an_unknown_plug_in(original: Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_tiny(original, **options)


def test_cuda_without_a_gpu(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        load_engine(original, dtype="float32", device="cuda", num_blocks=2)


def test_a_wrong_packed_linear_is_not_used(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private operator that changed its meaning is noticed at load, named, and replaced."""
    monkeypatch.setattr(linear.PackedLinear, "__call__", lambda self, rows: torch.zeros(len(rows), 8).to(rows.dtype))
    maker = make_linear_maker("auto", dtype=torch.float32, device=torch.device("cpu"))
    assert maker.name == "torch"
    assert maker.note is not None
    assert "wrong numbers" in maker.note
    with pytest.raises(ConfigError, match="wrong numbers"):
        make_linear_maker("onednn", dtype=torch.float32, device=torch.device("cpu"))


def test_one_wrong_packed_weight_becomes_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each weight proves itself, not only the first."""
    maker = make_linear_maker("onednn", dtype=torch.float32, device=torch.device("cpu"))
    weight, rows = torch.randn(20, 12), torch.randn(3, 12)
    monkeypatch.setattr(linear.PackedLinear, "__call__", lambda self, rows: torch.zeros(len(rows), 20))
    layer = maker.make(weight)
    torch.testing.assert_close(layer(rows), rows @ weight.T)
    assert maker.note is not None
    assert "(20, 12)" in maker.note


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block_table": [0]}, "needs 2 blocks"),
        ({"block_table": [0, 99]}, "outside the pool"),
        ({"block_table": [0, -1]}, "outside the pool"),
        ({"token_ids": [512] * 20}, "outside the vocabulary"),
        ({"token_ids": []}, "at least one token"),
    ],
    ids=str,
)
def test_a_slice_that_would_read_or_write_elsewhere(original: Path, changes: dict[str, Any], sentence: str) -> None:
    """The caller's bug is an error, never memory of somebody else."""
    engine = load_tiny(original, num_blocks=4)
    good = Slice(token_ids=[1] * 20, num_context_tokens=0, block_table=[0, 1])
    with pytest.raises(ValueError, match=sentence):
        engine.step([replace(good, **changes)])


def test_an_empty_step(original: Path) -> None:
    assert load_tiny(original, num_blocks=1).step([]) == []
