"""An owned request accepts every offset exactly once, whatever order, repetition or attempt its frames come in."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from brigade.core.answer import AcceptedTokens
from brigade.core.errors import BrigadeError
from brigade.core.messages import TokensPart
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled
from services.router.owning.owned import Owned, Phase


class Recorder:
    """A sink that keeps what it is given, and may end the answer at a token."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.token_ids: list[int] = []
        self.offsets: list[int] = []
        self.stop_at = stop_at

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        self.offsets.append(accepted.offset)
        self.token_ids += [token.token_id for token in accepted.tokens]
        return "stop" if self.stop_at in self.token_ids else None

    def on_error(self, error: BrigadeError) -> None:
        raise AssertionError(error)


def open_request(sink: Recorder, *, attempt: int = 1, max_tokens: int = 100) -> Owned:
    spec = RequestSpec(
        request_id="r", prompt_token_ids=(1,), sampling=SamplingParams(), stop=StopParams(max_tokens=max_tokens)
    )
    return Owned(spec=spec, sink=sink, phase=Phase.OPEN, attempt=attempt, highest_attempt=attempt)


def frame(offset: int, tokens: Sequence[int], *, attempt: int = 1, reason: str | None = None) -> TokensPart:
    return TokensPart(
        request_id="r",
        attempt=attempt,
        offset=offset,
        tokens=tuple(Sampled(token_id=t) for t in tokens),
        finish_reason=reason,
    )


@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=8), data=st.data())
def test_every_offset_is_accepted_once_in_any_order_and_repetition(cuts: list[int], data: st.DataObject) -> None:
    """Frames of one attempt, shuffled and repeated, give the answer once (rules 6, 15)."""
    answer = list(range(100, 100 + sum(cuts)))
    frames, start = [], 0
    for size in cuts:
        end = start + size
        frames.append(frame(start, answer[start:end], reason="stop" if end == len(answer) else None))
        start = end
    extra = data.draw(st.lists(st.sampled_from(frames), max_size=6))
    order = data.draw(st.permutations(frames + extra))
    sink = Recorder()
    request = open_request(sink)
    ended = None
    for part in order:
        had_gap = request.gap_since_s is not None
        ended = ended or request.apply(part, 0.0)
        if had_gap and request.gap_since_s is None and not ended:
            pending = list(request.take_held())
            while pending:
                progress = len(request.accepted)
                for held in pending:
                    ended = ended or request.apply(held, 0.0)
                pending = list(request.take_held()) if len(request.accepted) > progress else []
        if ended:
            break
    assert sink.token_ids == answer
    assert ended == "worker"


def test_frames_of_another_attempt_are_dropped() -> None:
    sink = Recorder()
    request = open_request(sink, attempt=2)
    assert request.apply(frame(0, [7], attempt=1), 0.0) is None
    assert request.apply(frame(0, [8], attempt=2), 0.0) is None
    assert sink.token_ids == [8]


def test_the_part_of_a_frame_that_is_known_is_not_given_twice() -> None:
    sink = Recorder()
    request = open_request(sink)
    request.apply(frame(0, [1, 2]), 0.0)
    request.apply(frame(1, [2, 3]), 0.0)
    assert sink.token_ids == [1, 2, 3]
    assert sink.offsets == [0, 2]


def test_a_stop_string_ends_the_answer_on_the_owners_side() -> None:
    sink = Recorder(stop_at=5)
    request = open_request(sink)
    assert request.apply(frame(0, [4]), 0.0) is None
    assert request.apply(frame(1, [5]), 0.0) == "owner"


def test_a_gap_is_dated_from_its_first_frame_and_ends_when_filled() -> None:
    request = open_request(Recorder())
    request.apply(frame(1, [2]), 10.0)
    request.apply(frame(2, [3]), 20.0)
    assert request.gap_since_s == 10.0
    request.apply(frame(0, [1]), 30.0)
    assert request.gap_since_s is None
    assert [part.offset for part in request.take_held()] == [1, 2]


def test_attempt_numbers_never_repeat() -> None:
    request = open_request(Recorder())
    assert [request.next_attempt() for _ in range(3)] == [2, 3, 4]
