"""The model's tokenizer and chat template, read from its folder without transformers.

Encoding follows tokenizer.json; what tokenizer_config.json adds is which tokens are special and the chat template.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from brigade.core.errors import ModelError
from services.router.json_file import read_json_object
from services.router.text.chat_template import ChatTemplate
from services.router.text.detokenizer import (
    ByteFallbackDetokenizer,
    ByteTableDetokenizer,
    Detokenizer,
    WindowDetokenizer,
)
from services.router.text.vocabulary import (
    byte_fallback_pieces,
    byte_level_table,
    decoder_steps,
    is_byte_fallback,
    is_byte_level,
)

_NAMED_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ModelTokenizer:
    """Text to ids and back for one model. Safe to share between requests; nothing in it changes."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        config: Mapping[str, Any],
        chat_template: str | None = None,
        encode_inline_chars: int = 2000,
    ) -> None:
        """`config` is the content of tokenizer_config.json, which may be empty."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        named = dict(_named_special_tokens(config))
        tokenizer.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in _missing_special(tokenizer, named)]
        )
        self._tokenizer = tokenizer
        self._encode_inline_chars = encode_inline_chars
        self._special_ids = frozenset(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)
        self.chat_template = None if chat_template is None else ChatTemplate(chat_template, named)
        steps = decoder_steps(tokenizer)
        self._byte_tables: dict[bool, list[bytes]] | None = None
        self._pieces: dict[bool, list[str | bytes]] | None = None
        skipped = {True: self._special_ids, False: frozenset[int]()}
        if is_byte_level(steps):
            self._byte_tables = {skip: byte_level_table(tokenizer, ids) for skip, ids in skipped.items()}
        elif is_byte_fallback(steps):
            self._pieces = {skip: byte_fallback_pieces(tokenizer, ids) for skip, ids in skipped.items()}

    @classmethod
    def from_folder(cls, folder: Path, *, encode_inline_chars: int = 2000) -> ModelTokenizer:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja. Raises ModelError."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} has no tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
        config = read_json_object(folder / "tokenizer_config.json")
        template_path = folder / "chat_template.jinja"
        template = template_path.read_text("utf-8") if template_path.is_file() else _template_in(config)
        return cls(tokenizer, config=config, chat_template=template, encode_inline_chars=encode_inline_chars)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text; long texts are encoded on a thread so that the event loop goes on."""
        if len(text) <= self._encode_inline_chars:
            return self.encode_now(text, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(self.encode_now, text, add_special_tokens=add_special_tokens)

    def encode_now(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of a whole list of ids."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def detokenizer(self, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool) -> Detokenizer:
        """Return a detokeniser for an answer that continues this prompt."""
        if self._byte_tables is not None:
            return ByteTableDetokenizer(self._byte_tables[skip_special_tokens], prompt_token_ids)
        if self._pieces is not None:
            return ByteFallbackDetokenizer(self._pieces[skip_special_tokens], prompt_token_ids)
        return WindowDetokenizer(self._tokenizer, prompt_token_ids, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for, special or not; may be part of a character."""
        if self._byte_tables is not None:
            table = self._byte_tables[False]
            return table[token_id] if token_id < len(table) else b""
        if self._pieces is not None:
            pieces = self._pieces[False]
            piece = pieces[token_id] if token_id < len(pieces) else b""
            return piece if isinstance(piece, bytes) else piece.encode()
        return self.decode([token_id]).encode()


def _named_special_tokens(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _NAMED_SPECIAL_TOKENS:
        value = config.get(name)
        if isinstance(value, Mapping):  # an AddedToken, written out
            value = value.get("content")
        if isinstance(value, str):
            yield name, value


def _missing_special(tokenizer: Tokenizer, named: Mapping[str, str]) -> list[str]:
    """Return the named special tokens that the vocabulary has but tokenizer.json does not mark as special."""
    marked = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    return sorted({t for t in named.values() if t not in marked and tokenizer.token_to_id(t) is not None})


def _template_in(config: Mapping[str, Any]) -> str | None:
    """Return the chat template of tokenizer_config.json: one string, or a list of named ones."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
