"""What the router reads from a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brigade.core.errors import ModelError
from services.router.contracts import SamplingDefaults
from services.router.model_folder import read_served_model

CONFIG = {"max_position_embeddings": 128, "vocab_size": 300, "eos_token_id": 7}


def folder_with(folder: Path, config: object, generation: object = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_end_ids_and_sampling_defaults_come_from_the_generation_config(tmp_path: Path) -> None:
    """Models with several end tokens list them there and nowhere else."""
    generation = {"eos_token_id": [7, 9], "temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True}
    model = read_served_model(folder_with(tmp_path, CONFIG, generation), name="m")
    assert model.eos_token_ids == (7, 9)
    assert model.sampling_defaults == SamplingDefaults(temperature=0.6, top_k=20, top_p=0.95)
    assert (model.name, model.root, model.max_model_len_tokens, model.vocab_size) == ("m", str(tmp_path), 128, 300)


def test_without_a_generation_config_the_model_config_counts(tmp_path: Path) -> None:
    model = read_served_model(folder_with(tmp_path, CONFIG), max_model_len_tokens=64)
    assert model.eos_token_ids == (7,)
    assert model.sampling_defaults == SamplingDefaults()
    assert (model.name, model.max_model_len_tokens) == (tmp_path.name, 64)


def test_folders_that_cannot_be_served_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_served_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is missing"):
        read_served_model(tmp_path)
    with pytest.raises(ModelError, match="no usable vocab_size"):
        read_served_model(folder_with(tmp_path, {"max_position_embeddings": 128}))
    with pytest.raises(ModelError, match="above the model's own limit"):
        read_served_model(folder_with(tmp_path, CONFIG), max_model_len_tokens=129)
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(ModelError, match="is not JSON"):
        read_served_model(tmp_path)
