"""Stop strings end an answer at the same character however its text was cut into tokens, and never leak."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.text.stop_strings import StopStrings

WORDS = st.text(alphabet="ab", min_size=1, max_size=5)
STOPS = st.lists(WORDS, min_size=1, max_size=4, unique=True)


def by_definition(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Return the text before the stop that ends first (of two, the longer), found the slow way."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(st.lists(st.text(alphabet="ab", max_size=4), max_size=12), STOPS)
def test_the_result_does_not_depend_on_token_borders(pieces: list[str], stops: list[str]) -> None:
    """Text released so far is always a prefix of the final text: no part of a stop string ever leaves."""
    expected, expected_stop = by_definition("".join(pieces), stops)
    watch, released = StopStrings(stops), ""
    for piece in pieces:
        text, stop = watch.push(piece)
        released += text
        assert expected.startswith(released)
        if stop is not None:
            assert (released, stop) == (expected, expected_stop)
            return
    assert expected_stop is None
    assert released + watch.flush() == expected


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=12), STOPS)
def test_no_more_is_held_back_than_could_become_a_stop(pieces: list[str], stops: list[str]) -> None:
    watch, text, released = StopStrings(stops), "", ""
    for piece in pieces:
        new, stop = watch.push(piece)
        if stop is not None:
            return
        text, released = text + piece, released + new
        held = text[len(released) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_a_stop_over_three_tokens_is_found() -> None:
    watch = StopStrings(["\n\nUser:"])
    assert [watch.push(text) for text in ("Yes.\n", "\nUs", "er: more")] == [
        ("Yes.", None),
        ("", None),
        ("", "\n\nUser:"),
    ]
