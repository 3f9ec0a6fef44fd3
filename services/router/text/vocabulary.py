"""The bytes that each token of a vocabulary stands for, read from the tokenizer's own description of its decoder."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_FALLBACK_STEPS = {"Replace", "ByteFallback", "Fuse", "Strip"}


def byte_level_alphabet() -> dict[str, int]:
    """Return the printable stand-in of each byte in byte-level BPE.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, for U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


def decoder_steps(tokenizer: Tokenizer) -> list[Mapping[str, Any]]:
    """Return the decoder's steps as tokenizer.json describes them; empty where there is none."""
    decoder = json.loads(tokenizer.to_str())["decoder"]
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def is_byte_level(steps: Sequence[Mapping[str, Any]]) -> bool:
    return [step["type"] for step in steps] == ["ByteLevel"]


def is_byte_fallback(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the decoder is the usual chain: U+2581 to space, bytes, fuse and perhaps strip one leading space."""
    types = [step["type"] for step in steps]
    if "ByteFallback" not in types or not set(types) <= _FALLBACK_STEPS or types.count("Replace") != 1:
        return False
    replace = next(step for step in steps if step["type"] == "Replace")
    strips = [step for step in steps if step["type"] == "Strip"]
    return (
        types[:2] == ["Replace", "ByteFallback"]
        and replace["pattern"] == {"String": "\u2581"}
        and replace["content"] == " "
        and all(step["content"] == " " and step["stop"] == 0 for step in strips)
    )


def byte_level_table(tokenizer: Tokenizer, skipped: Collection[int]) -> list[bytes]:
    """Return the bytes of each id of a byte-level vocabulary; nothing for ids in `skipped` and for gaps."""
    alphabet = byte_level_alphabet()

    def to_bytes(token: str) -> bytes:
        try:
            return bytes(alphabet[character] for character in token)
        except KeyError:  # an added token, written as itself
            return token.encode()

    return [b"" if token is None else to_bytes(token) for token in _tokens(tokenizer, skipped)]


def byte_fallback_pieces(tokenizer: Tokenizer, skipped: Collection[int]) -> list[str | bytes]:
    """Return each id's text, or its one byte for byte tokens; b"" (adds nothing) for ids in `skipped` and for gaps."""
    pieces: list[str | bytes] = []
    for token in _tokens(tokenizer, skipped):
        if token is None:
            pieces.append(b"")
        elif match := _BYTE_TOKEN.match(token):
            pieces.append(bytes([int(match[1], 16)]))
        else:
            pieces.append(token.replace("\u2581", " "))
    return pieces


def _tokens(tokenizer: Tokenizer, skipped: Collection[int]) -> list[str | None]:
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for token, token_id in ids.items():
        if token_id not in skipped:
            tokens[token_id] = token
    return tokens
