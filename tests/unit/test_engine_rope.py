"""Rotary embeddings equal transformers', kind by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import answer, assert_same_answer, load_reference, load_tiny, make_prompt, reference_greedy
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from brigade.core.errors import ModelError
from brigade.engine.random_models import make_random_model
from brigade.engine.rope import inverse_frequencies
from brigade.engine.shape import RopeShape

VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 500000.0,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "rope_theta": 10000.0,
    },
    "yarn-attention-factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "attention_factor": 0.8,
        "beta_fast": 16,
        "beta_slow": 2,
        "original_max_position_embeddings": 128,
        "rope_theta": 10000.0,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 8.0,
        "mscale": 1.2,
        "mscale_all_dim": 0.7,
        "truncate": False,
        "original_max_position_embeddings": 64,
        "rope_theta": 10000.0,
    },
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_frequencies_equal_transformers(name: str) -> None:
    """The angles per position and the factor on them are transformers' own."""
    parameters = VARIANTS[name]
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=4, max_position_embeddings=512, rope_parameters=dict(parameters)
    )
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    shape = RopeShape(head_dim=64, max_positions=512, parameters=parameters)
    got, got_factor = inverse_frequencies(shape)
    torch.testing.assert_close(got, expected)
    assert got_factor == pytest.approx(factor)


@pytest.mark.parametrize("name", ["linear", "llama3", "yarn"])
def test_answers_with_scaled_positions(tmp_path: Path, name: str) -> None:
    """A model with scaled positions answers as the reference, beyond its original context too."""
    folder = make_random_model("llama", tmp_path, config={"rope_parameters": VARIANTS[name]})
    reference, engine = load_reference(folder), load_tiny(folder)
    prompt = make_prompt(200)
    (branch,) = answer(engine, [prompt], 8, chunk_tokens=90)
    assert_same_answer(branch.output, reference_greedy(reference, prompt, 8))


def test_older_configs_keep_theta_and_scaling_apart(tmp_path: Path) -> None:
    """Folders written before rope_parameters existed mean the same."""
    old = {"rope_parameters": None, "rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}
    prompt = make_prompt(60)
    outputs = []
    for name, config in (("old", old), ("new", new)):
        engine = load_tiny(make_random_model("llama", tmp_path / name, config=config))
        outputs.append(answer(engine, [prompt], 8)[0].output)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "proportional"])
def test_unknown_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    """A kind that is not computed is refused, not taken for the default."""
    folder = make_random_model("llama", tmp_path, config={"rope_parameters": {"rope_type": kind, "factor": 2.0}})
    with pytest.raises(ModelError, match=kind):
        load_tiny(folder)
