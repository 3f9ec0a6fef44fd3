"""One answer from tokens to parts: where it ends, what of it is shown, and which tokens stand behind which text."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from support.router_tokenizers import byte_level, model_tokenizer

from brigade.core.answer import AcceptedTokens
from brigade.core.errors import BrigadeError, Unavailable
from brigade.core.step import Sampled
from services.router.answering.branch import BranchAnswer
from services.router.answering.part import Part
from services.router.metrics import BranchMeter, RouterMetrics
from services.router.openai.ask import StopRules

TOKENIZER = model_tokenizer(byte_level(), eos_token="</s>")
END_ID = TOKENIZER.encode_now("</s>", add_special_tokens=False)[0]


class Branch:
    """A branch with what it handed on."""

    def __init__(self, stop: StopRules | None = None, *, wants_tokens: bool = False) -> None:
        self.parts: list[Part] = []
        self.errors: list[BrigadeError] = []
        metrics = RouterMetrics(CollectorRegistry(), model_name="m", now_s=time.perf_counter)
        self.answer = BranchAnswer(
            detokenizer=TOKENIZER.detokenizer((), skip_special_tokens=True),
            stop=stop or StopRules(),
            wants_tokens=wants_tokens,
            meter=BranchMeter(metrics, 0.0),
            emit=self.parts.append,
            fail=self.errors.append,
        )
        self._offset = 0

    def feed(self, ids: Sequence[int], finish_reason: str | None = None) -> str | None:
        tokens = [Sampled(token_id=token_id, logprob=-1.0) for token_id in ids]
        offset, self._offset = self._offset, self._offset + len(ids)
        return self.answer.on_tokens(AcceptedTokens(offset=offset, tokens=tokens, finish_reason=finish_reason))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def last(self) -> Part:
        return self.parts[-1]


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode_now(text, add_special_tokens=False)


def test_the_models_end_token_ends_the_answer_without_a_trace_in_its_text() -> None:
    branch = Branch(StopRules(token_ids=frozenset({END_ID})))
    assert branch.feed(ids_of("hello")) is None
    assert branch.feed([END_ID], "stop") is None
    assert (branch.text, branch.last.finish_reason, branch.last.stop_reason) == ("hello", "stop", None)
    assert branch.answer.num_tokens == len(ids_of("hello")) + 1


def test_a_stop_token_of_the_clients_is_named_and_not_shown() -> None:
    [stop_id] = ids_of("!")
    rules = StopRules(token_ids=frozenset({END_ID, stop_id}), reported_token_ids=frozenset({stop_id}))
    branch = Branch(rules)
    branch.feed([*ids_of("wow"), stop_id], "stop")
    assert (branch.text, branch.last.finish_reason, branch.last.stop_reason) == ("wow", "stop", stop_id)


def test_an_end_that_comes_without_tokens_is_told_as_if_it_had_come_with_the_last() -> None:
    """After a failure the owner may find that the accepted tokens were already complete."""
    [stop_id] = ids_of("!")
    rules = StopRules(strings=("END",), token_ids=frozenset({stop_id}), reported_token_ids=frozenset({stop_id}))
    branch = Branch(rules)
    branch.feed([*ids_of("an EN"), stop_id])
    assert branch.text == "an "
    branch.feed([], "stop")
    assert (branch.text, branch.last.finish_reason, branch.last.stop_reason) == ("an EN", "stop", stop_id)


def test_an_included_stop_is_shown() -> None:
    [stop_id] = ids_of("!")
    branch = Branch(StopRules(token_ids=frozenset({stop_id}), is_included=True))
    branch.feed([*ids_of("wow"), stop_id], "stop")
    assert branch.text == "wow!"
    branch = Branch(StopRules(strings=("nd",), is_included=True))
    assert branch.feed(ids_of("and so on")) == "stop"
    assert branch.text == "and"


def test_a_stop_string_across_frames_ends_the_answer_and_nothing_of_it_leaks() -> None:
    branch = Branch(StopRules(strings=("END",)))
    assert branch.feed(ids_of("one E")) is None
    assert branch.text == "one "
    assert branch.feed(ids_of("N")) is None
    assert branch.feed(ids_of("Dxyz")) == "stop"
    assert (branch.text, branch.last.finish_reason, branch.last.stop_reason) == ("one ", "stop", "END")
    assert branch.answer.num_tokens == len(ids_of("one END"))
    assert branch.answer.is_finished


def test_held_back_text_comes_out_when_the_answer_ends_otherwise() -> None:
    branch = Branch(StopRules(strings=("END",)))
    branch.feed(ids_of("the EN"), "length")
    assert (branch.text, branch.last.finish_reason) == ("the EN", "length")


def test_stop_strings_within_the_first_min_tokens_do_not_count() -> None:
    """As vLLM: text of the first min_tokens tokens is not searched."""
    branch = Branch(StopRules(strings=("aa",), min_tokens=3))
    assert branch.feed(ids_of("a") * 4) is None
    assert branch.feed(ids_of("a")) == "stop"
    assert branch.text == "aaa"


def test_half_a_character_waits_for_the_other_half_or_for_the_end() -> None:
    ids = ids_of("\U0001f600")
    branch = Branch()
    branch.feed(ids[:1])
    assert branch.parts == []
    branch.feed(ids[1:])
    assert branch.text == "\U0001f600"
    branch.feed(ids[:1], "length")
    assert branch.text == "\U0001f600\ufffd"


def test_tokens_travel_with_the_text_they_made_and_know_where_it_begins() -> None:
    branch = Branch(wants_tokens=True)
    branch.feed(ids_of("ab"))
    branch.feed(ids_of("\u00e9c"), "length")
    offsets = [offset for part in branch.parts for offset in part.text_offsets]
    assert offsets == [0, 1, 2, 2, 3]
    assert [token.token_id for part in branch.parts for token in part.tokens] == ids_of("ab\u00e9c")


def test_tokens_of_a_possible_stop_string_are_held_back_with_its_text() -> None:
    """Ids and log-probabilities would leak the stop string as surely as its text."""
    branch = Branch(StopRules(strings=("END",)), wants_tokens=True)
    branch.feed(ids_of("xE"))
    branch.feed(ids_of("N"))
    assert [(part.text, len(part.tokens)) for part in branch.parts] == [("x", 1)]
    branch.feed(ids_of("o"), "length")
    assert [(part.text, len(part.tokens)) for part in branch.parts] == [("x", 1), ("ENo", 3)]


@given(st.text(max_size=12), st.lists(st.integers(1, 3), min_size=40, max_size=40), st.booleans())
def test_frames_of_any_size_give_the_same_text(text: str, sizes: list[int], wants_tokens: bool) -> None:
    branch, ids = (
        Branch(StopRules(strings=("ab", "ba"), token_ids=frozenset()), wants_tokens=wants_tokens),
        ids_of(text),
    )
    cuts = [min(text.find(stop) for stop in ("ab", "ba") if stop in text)] if "ab" in text or "ba" in text else []
    while ids:
        size = sizes.pop()
        frame, ids = ids[:size], ids[size:]
        if branch.feed(frame, None if ids else "length") is not None:
            break
    assert branch.text == (text[: cuts[0]] if cuts else text)


def test_an_error_and_a_leaving_client_end_the_branch_once() -> None:
    branch = Branch()
    branch.answer.on_error(Unavailable("no worker", retry_after_s=1))
    branch.answer.abandon()
    assert branch.answer.is_finished
    assert [str(error) for error in branch.errors] == ["no worker"]
    assert branch.parts == []


def test_an_error_after_the_client_has_left_is_not_told_again() -> None:
    branch = Branch()
    branch.answer.abandon()
    branch.answer.on_error(Unavailable("no worker", retry_after_s=1))
    assert branch.errors == []
