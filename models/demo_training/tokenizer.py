"""The tokenizer of the demo model: byte-level BPE with three control tokens and a ChatML chat template."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Template
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
VOCAB_SIZE = 2048

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_COMPILED = Template(CHAT_TEMPLATE, keep_trailing_newline=True)


def render_chat(messages: Sequence[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
    """Render messages as the saved chat template does."""
    text: str = _COMPILED.render(messages=messages, add_generation_prompt=add_generation_prompt)
    return text


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train the byte-level BPE; every byte has a token, so any text can be encoded. No token is put before a text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in (END_OF_TEXT, TURN_START, TURN_END)],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length_tokens: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` such that ``AutoTokenizer`` loads them offline."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length_tokens,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
