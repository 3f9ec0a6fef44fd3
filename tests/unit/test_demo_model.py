"""The bundled demo model loads offline with transformers, is small, and answers in the way its README says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
MAX_FOLDER_BYTES = 25_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO, local_files_only=True, dtype=torch.float32).eval()


def test_folder_is_small_enough_to_bundle() -> None:
    """The model travels in the repository, so its whole folder has a limit."""
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= MAX_FOLDER_BYTES


def test_chat_template_renders_a_conversation_once_and_opens_the_reply(tokenizer: Any) -> None:
    """A second BOS or a missing assistant header would put the model off what it was trained on."""
    messages = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "A story, please."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are kind.<|im_end|>\n"
        "<|im_start|>user\nHello!<|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n"
        "<|im_start|>user\nA story, please.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.bos_token_id is None
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["Grüße, 日本 🎉", "  two  spaces\n\tand a tab ", "\x00\x7f"])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    """A byte-level vocabulary has no unknown token, whatever a user types."""
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_weights_and_end_tokens_are_as_stated(model: Any, tokenizer: Any) -> None:
    """The engine reads shape and stop tokens from these files, so they must agree with the tokenizer."""
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert model.config.vocab_size == len(tokenizer)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert model.generation_config.eos_token_id == ends
    assert (model.generation_config.temperature, model.generation_config.top_p) == (0.7, 0.95)


def test_greedy_story_names_its_hero_and_ends(model: Any, tokenizer: Any) -> None:
    """The one thing the demo model is for: it tells the story it was asked for and stops by itself."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tell me a story about a fox named Biscuit."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=200, do_sample=False, temperature=None, top_p=None)
    reply = output[0, inputs["input_ids"].shape[1] :]
    assert int(reply[-1]) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    story = tokenizer.decode(reply, skip_special_tokens=True)
    assert "Biscuit" in story
    assert "fox" in story
