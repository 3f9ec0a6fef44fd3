"""Text comes out token by token as decoding the whole gives it, and never with half a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.router_tokenizers import DEMO_MODEL, byte_fallback, byte_level, metaspace, model_tokenizer

from services.router.text.detokenizer import Detokenizer, WindowDetokenizer
from services.router.text.tokenizer import ModelTokenizer

BYTE_LEVEL = model_tokenizer(byte_level())
BYTE_FALLBACK = model_tokenizer(byte_fallback())
METASPACE = model_tokenizer(metaspace())
DEMO = ModelTokenizer.from_folder(DEMO_MODEL)


def streamed(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@given(st.lists(st.integers(0, 270), max_size=40), st.booleans())
def test_byte_level_pieces_join_to_the_whole_decoding(ids: list[int], skip: bool) -> None:
    """Any ids, valid UTF-8 or not, special, added or unknown: the stream says what the library says of the whole."""
    detokenizer = BYTE_LEVEL.detokenizer((), skip_special_tokens=skip)
    assert "".join(streamed(detokenizer, ids)) == BYTE_LEVEL.decode(ids, skip_special_tokens=skip)


@given(st.lists(st.integers(0, 2047), max_size=40), st.booleans())
def test_the_demo_model_pieces_join_to_the_whole_decoding(ids: list[int], skip: bool) -> None:
    detokenizer = DEMO.detokenizer((), skip_special_tokens=skip)
    assert "".join(streamed(detokenizer, ids)) == DEMO.decode(ids, skip_special_tokens=skip)


@given(st.text(max_size=20))
def test_no_piece_of_valid_text_holds_half_a_character(text: str) -> None:
    """Each emoji spans several byte tokens; a client must never see the halves."""
    ids = BYTE_LEVEL.encode_now(text, add_special_tokens=False)
    pieces = streamed(BYTE_LEVEL.detokenizer((), skip_special_tokens=True), ids)
    assert "".join(pieces) == text
    assert text.count("\ufffd") == sum(piece.count("\ufffd") for piece in pieces)
    assert pieces[-1] == ""


@given(st.text(alphabet="ab \u00e9\u597d\U0001f600", max_size=20))
def test_byte_fallback_pieces_join_to_the_text(text: str) -> None:
    """Characters without a token go through byte tokens; the prompt before it keeps the answer's first space."""
    ids = BYTE_FALLBACK.encode_now(text.replace(" ", "\u2581"), add_special_tokens=False)
    assert "".join(streamed(BYTE_FALLBACK.detokenizer((), skip_special_tokens=True), ids)) == text
    assert BYTE_FALLBACK.decode(ids) == text.removeprefix(" ")


def test_broken_byte_tokens_become_replacement_characters() -> None:
    detokenizer = BYTE_FALLBACK.detokenizer((), skip_special_tokens=True)
    first = 2 + 0xE5  # the id of the byte token <0xE5>
    assert streamed(detokenizer, [first, 2 + 0xA5, 259]) == ["", "", "\ufffda", ""]
    assert streamed(BYTE_FALLBACK.detokenizer((), skip_special_tokens=True), [first]) == ["", "\ufffd"]


@given(st.lists(st.integers(1, 6), max_size=30))
def test_a_decoder_without_a_table_joins_to_the_whole_decoding(ids: list[int]) -> None:
    detokenizer = METASPACE.detokenizer((), skip_special_tokens=True)
    assert isinstance(detokenizer, WindowDetokenizer)
    assert "".join(streamed(detokenizer, ids)) == METASPACE.decode(ids)


@given(st.lists(st.integers(0, 260), max_size=30))
def test_the_window_agrees_with_the_table(ids: list[int]) -> None:
    """Two ways to the same text: an independent check of both on valid and invalid bytes alike."""
    window = WindowDetokenizer(byte_level(), (), skip_special_tokens=True)
    table = BYTE_LEVEL.detokenizer((), skip_special_tokens=True)
    assert "".join(streamed(window, ids)) == "".join(streamed(table, ids))


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, DEMO])
def test_an_answer_completes_the_character_that_the_prompt_began(tokenizer: ModelTokenizer) -> None:
    """Prompts as token ids may end inside a character; what follows belongs to it."""
    ids = tokenizer.encode_now("\U0001f600", add_special_tokens=False)
    assert len(ids) > 2
    for num_given in range(1, len(ids)):
        detokenizer = tokenizer.detokenizer(ids[:num_given], skip_special_tokens=True)
        assert "".join(streamed(detokenizer, ids[num_given:])) == "\U0001f600"


def test_a_metaspace_answer_keeps_the_space_before_its_first_word() -> None:
    detokenizer = METASPACE.detokenizer((4, 3), skip_special_tokens=True)
    assert streamed(detokenizer, [1, 2]) == [" the", " a", ""]


def test_token_bytes_show_parts_of_characters_and_special_tokens() -> None:
    ids = BYTE_LEVEL.encode_now("\U0001f600</s>", add_special_tokens=False)
    assert b"".join(BYTE_LEVEL.token_bytes(token_id) for token_id in ids) == "\U0001f600</s>".encode()
    assert BYTE_LEVEL.token_bytes(10**6) == b""
    assert BYTE_FALLBACK.token_bytes(2 + 0xE5) == b"\xe5"


def test_tokens_that_only_the_config_calls_special_are_special() -> None:
    """tokenizer_config.json may name an end token that tokenizer.json lists as an ordinary word."""
    tokenizer = model_tokenizer(byte_level(), eos_token="the")
    ids = tokenizer.encode_now("the", add_special_tokens=False)
    assert len(ids) == 1
    assert tokenizer.detokenizer((), skip_special_tokens=True).push(ids[0]) == ""
    assert tokenizer.detokenizer((), skip_special_tokens=False).push(ids[0]) == "the"
