"""Incremental detokenising: the text that each token adds, never with half a character.

Byte-level BPE and byte-fallback vocabularies are tables of bytes, so a token costs a look-up and an incremental UTF-8
decoder keeps what is not yet a whole character. Every other decoder runs over a short window of ids.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer

PRIMING_TOKENS = 8
"""How many prompt tokens a detokeniser looks at to continue a character or a word that the prompt began."""

_NEW_UTF8_DECODER = codecs.getincrementaldecoder("utf-8")
_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """Turns the tokens of one answer into text."""

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; may be empty."""

    def flush(self) -> str:
        """Return what remains when the answer ends: U+FFFD for each broken character."""


class ByteTableDetokenizer:
    """For vocabularies where every token is a fixed string of bytes (byte-level BPE)."""

    __slots__ = ("_decode", "_table")

    def __init__(self, table: Sequence[bytes], prompt_token_ids: Sequence[int]) -> None:
        self._table = table
        self._decode = _NEW_UTF8_DECODER("replace").decode
        for token_id in prompt_token_ids[-PRIMING_TOKENS:]:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        table = self._table
        return self._decode(table[token_id]) if token_id < len(table) else ""

    def flush(self) -> str:
        return self._decode(b"", True)


class ByteFallbackDetokenizer:
    """For vocabularies of text pieces with a token per byte for what they lack (`<0x0A>`).

    A run of byte tokens is decoded as UTF-8 by itself: a text piece after an unfinished character ends that character.
    """

    __slots__ = ("_decoder", "_pieces")

    def __init__(self, pieces: Sequence[str | bytes], prompt_token_ids: Sequence[int]) -> None:
        self._pieces = pieces
        self._decoder = _NEW_UTF8_DECODER("replace")
        for token_id in prompt_token_ids[-PRIMING_TOKENS:]:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        piece = self._pieces[token_id] if token_id < len(self._pieces) else b""
        if isinstance(piece, bytes):
            return self._decoder.decode(piece)
        return self.flush() + piece

    def flush(self) -> str:
        return self._decoder.decode(b"", True)


class WindowDetokenizer:
    """For any decoder: decodes the last few ids again with each new one and returns what has been added.

    What ends in U+FFFD is kept back, because the next token may complete it.
    """

    __slots__ = ("_ids", "_num_known", "_skip_special_tokens", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._ids: deque[int] = deque(prompt_token_ids[-PRIMING_TOKENS:])
        self._num_known = len(self._ids)

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        added = self._added()
        if not added or added.endswith(_REPLACEMENT):
            return ""
        for _ in range(self._num_known):
            self._ids.popleft()
        self._num_known = len(self._ids)
        return added

    def flush(self) -> str:
        added = self._added()
        self._num_known = len(self._ids)
        return added

    def _added(self) -> str:
        ids = list(self._ids)
        known = self._decode(ids[: self._num_known])
        return self._decode(ids)[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip_special_tokens)
        return text
