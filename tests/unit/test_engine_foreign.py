"""Decoders that run by their own forward: served when they equal the unmodified model, refused with a sentence when not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from engine_models import answer, assert_same_answer, load_reference, load_tiny, make_prompt, reference_greedy
from safetensors.torch import load_file, save_file

from brigade.core.errors import ModelError
from brigade.engine import foreign
from brigade.engine.folder import model_info
from brigade.engine.random_models import make_random_model

BASE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}


def save_model(folder: Path, config: Any) -> Path:
    """Save a model of transformers' own making with wide random weights."""
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


SERVED = {
    "neox": lambda: transformers.GPTNeoXConfig(**BASE),
    "phi3": lambda: transformers.Phi3Config(**BASE, num_key_value_heads=2),
    "starcoder2-window": lambda: transformers.Starcoder2Config(**BASE, num_key_value_heads=2, sliding_window=20),
    "gpt2": lambda: transformers.GPT2Config(**BASE),
}


@pytest.mark.parametrize("name", sorted(SERVED))
def test_other_decoders_answer_as_the_reference(tmp_path: Path, name: str) -> None:
    """Partial rotary, fused projections, windows, learned positions: none of it is ours, all of it is right."""
    folder = save_model(tmp_path, SERVED[name]())
    engine, reference = load_tiny(folder), load_reference(folder)
    prompts = [make_prompt(length) for length in (1, 17, 60)]
    branches = answer(engine, prompts, 8, chunk_tokens=25, starts=[0, 1, 2])
    for prompt, branch in zip(prompts, branches, strict=True):
        assert_same_answer(branch.output, reference_greedy(reference, prompt, 8))


REFUSED = {
    "softcap": (lambda: transformers.Gemma2Config(**BASE, num_key_value_heads=4, head_dim=16), "needs softcap"),
    "alibi": (lambda: transformers.BloomConfig(**BASE), "not supported"),
    "mamba": (lambda: transformers.MambaConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2), "not supported"),
    "dynamic-rope": (
        lambda: transformers.OlmoConfig(
            **BASE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        ),
        "'dynamic' is not supported",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_right_is_refused(tmp_path: Path, name: str) -> None:
    """One sentence with the architecture's name and the reason."""
    make, sentence = REFUSED[name]
    with pytest.raises(ModelError, match=sentence):
        load_tiny(save_model(tmp_path, make()))


def test_a_difference_from_the_unmodified_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check at load sees what no config says: here, an attention with the wrong scale."""
    folder = make_random_model("olmo2", tmp_path)
    right = foreign._attend

    def wrong(*args: Any, scaling: float, **kwargs: Any) -> Any:
        return right(*args, scaling=scaling * 1.2, **kwargs)

    monkeypatch.setattr(foreign, "_attend", wrong)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(ModelError, match="differ from the unmodified model"):
            load_tiny(folder, dtype=dtype)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    """transformers fills a missing tensor with chance and a warning; we refuse."""
    folder = make_random_model("olmo2", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.o_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="o_proj"):
        load_tiny(folder)


def test_info_of_a_config_with_other_field_names(tmp_path: Path) -> None:
    """GPT-2 calls its layers n_layer; what the system needs is found all the same."""
    folder = save_model(tmp_path / "gpt2", transformers.GPT2Config(**BASE))
    info = model_info(folder)
    assert (info.num_layers, info.num_kv_heads, info.head_dim, info.max_model_len_tokens) == (2, 4, 16, 128)
    shutil.rmtree(folder)
