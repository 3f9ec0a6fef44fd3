"""One branch of a client's request: takes accepted tokens, gives text, and ends at stop strings."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from brigade.core.answer import AcceptedTokens
from brigade.core.errors import BrigadeError
from brigade.core.step import Sampled
from services.router.answering.part import Part
from services.router.metrics import BranchMeter
from services.router.openai.ask import StopRules
from services.router.text.detokenizer import Detokenizer
from services.router.text.stop_strings import StopStrings


class BranchAnswer:
    """The sink of one request. Hands each Part to `emit` as soon as none of its text can turn out to be a stop string.

    With `wants_tokens` parts carry the tokens too, and a token without text of its own still makes a part.
    """

    __slots__ = (
        "_detokenizer",
        "_emit",
        "_fail",
        "_last_id",
        "_meter",
        "_num_chars",
        "_num_sent_chars",
        "_offsets",
        "_stop",
        "_stops",
        "_tokens",
        "_wants_tokens",
        "is_finished",
        "num_cached_tokens",
        "num_tokens",
    )

    def __init__(
        self,
        *,
        detokenizer: Detokenizer,
        stop: StopRules,
        wants_tokens: bool,
        meter: BranchMeter,
        emit: Callable[[Part], None],
        fail: Callable[[BrigadeError], None],
    ) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._stops = StopStrings(stop.strings) if stop.strings else None
        self._wants_tokens = wants_tokens
        self._meter = meter
        self._emit = emit
        self._fail = fail
        self._tokens: list[Sampled] = []
        self._offsets: list[int] = []
        self._last_id = -1
        self._num_chars = 0
        self._num_sent_chars = 0
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self.is_finished = False

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        """Take the next tokens (none where only the end was still to be told).

        Returns 'stop' when a stop string ends the answer here.
        """
        assert not self.is_finished, "tokens after the end of an answer"
        if accepted.offset == 0:
            self.num_cached_tokens = accepted.num_cached_tokens
        num_before = self.num_tokens
        text, stop_string = self._add(accepted.tokens)
        if self.num_tokens > num_before:
            self._meter.on_tokens(self.num_tokens - num_before)
        if stop_string is None and accepted.finish_reason is not None:
            rest, stop_string = self._take_rest()
            text += rest
        if stop_string is not None:
            self._finish(text, "stop", stop_string)
            return "stop" if accepted.finish_reason is None else None
        if accepted.finish_reason is not None:
            is_named = accepted.finish_reason == "stop" and self._last_id in self._stop.reported_token_ids
            self._finish(text, accepted.finish_reason, self._last_id if is_named else None)
        elif text or (self._wants_tokens and self._stops is None):
            self._send(text, None, None)
        return None

    def on_error(self, error: BrigadeError) -> None:
        if self.is_finished:
            return  # the client had left already
        self.is_finished = True
        self._meter.on_finish("error")
        self._fail(error)

    def abandon(self) -> None:
        """The client has left: nothing more is wanted."""
        if not self.is_finished:
            self.is_finished = True
            self._meter.on_finish("abort")

    def _add(self, tokens: Sequence[Sampled]) -> tuple[str, str | None]:
        """Take tokens up to a stop string; return the text that may leave, and the stop string."""
        released = ""
        stop = self._stop
        for token in tokens:
            token_id = self._last_id = token.token_id
            self.num_tokens += 1
            if self._wants_tokens:
                self._tokens.append(token)
                self._offsets.append(self._num_chars)
            if token_id in stop.token_ids and self.num_tokens > stop.min_tokens and not stop.is_included:
                continue  # it ends the answer and is no part of its text
            text, stop_string = self._watch(self._detokenizer.push(token_id))
            released += text
            if stop_string is not None:
                return released, stop_string
        return released, None

    def _take_rest(self) -> tuple[str, str | None]:
        """Return what is left when the worker has ended the answer."""
        text, stop_string = self._watch(self._detokenizer.flush())
        if stop_string is None and self._stops is not None:
            text += self._stops.flush()
        return text, stop_string

    def _watch(self, text: str) -> tuple[str, str | None]:
        """Pass text by the stop strings; return what may leave, and the stop string that ends the answer."""
        self._num_chars += len(text)
        if self._stops is None or self.num_tokens <= self._stop.min_tokens:
            return text, None
        text, stop_string = self._stops.push(text)
        return (text + stop_string if stop_string is not None and self._stop.is_included else text), stop_string

    def _finish(self, text: str, finish_reason: str, stop_reason: str | int | None) -> None:
        self.is_finished = True
        self._meter.on_finish(finish_reason)
        self._send(text, finish_reason, stop_reason)

    def _send(self, text: str, finish_reason: str | None, stop_reason: str | int | None) -> None:
        if not self._wants_tokens:
            self._emit(Part(text=text, finish_reason=finish_reason, stop_reason=stop_reason))
            return
        self._num_sent_chars += len(text)
        num_ready = len(self._tokens)
        if self._stops is not None and finish_reason is None:
            # a token whose text is held back waits with it: it may turn out to belong to a stop string
            num_ready = bisect_left(self._offsets, self._num_sent_chars)
        tokens, self._tokens = self._tokens[:num_ready], self._tokens[num_ready:]
        offsets, self._offsets = self._offsets[:num_ready], self._offsets[num_ready:]
        self._emit(
            Part(text=text, tokens=tokens, text_offsets=offsets, finish_reason=finish_reason, stop_reason=stop_reason)
        )
