"""Small tokenizers, one of each kind of decoder, made on the spot."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.router.text.tokenizer import ModelTokenizer
from services.router.text.vocabulary import byte_level_alphabet

DEMO_MODEL = Path(__file__).parents[2] / "models" / "demo"
_PIECES = ("▁", "a", "b", "▁a", "▁the", "é", "th", "e", "é▁")


def byte_level() -> Tokenizer:
    """Return a byte-level BPE whose merges include parts of characters, with special and plain added tokens."""
    vocabulary = {token: place for place, token in enumerate([*byte_level_alphabet(), "th", "the", "Ġth", "ä½", "ðŁ"])}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "th"), ("ä", "½"), ("ð", "Ł")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool → x>", special=False)])
    return tokenizer


def byte_fallback(*, strip: bool = True) -> Tokenizer:
    """Return a vocabulary of pieces with a token per byte, decoded as Llama 2's and Mistral's."""
    names = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: place for place, name in enumerate(names)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def metaspace() -> Tokenizer:
    """Return a vocabulary of pieces without byte tokens, for the detokeniser that knows no table."""
    names = ["<unk>", "▁the", "▁a", "é", "b", "▁", "好"]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def model_tokenizer(tokenizer: Tokenizer, **config: object) -> ModelTokenizer:
    return ModelTokenizer(tokenizer, config=config)
