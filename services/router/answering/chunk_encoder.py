"""One streamed choice as server-sent events. Most events differ in their text alone, so the rest is made once."""

from __future__ import annotations

from typing import Any

import orjson

from services.router.answering.part import Part
from services.router.openai.ask import Shape
from services.router.openai.reply import Choice, Dialect, ReplyHead
from services.router.text.tokenizer import ModelTokenizer

DONE_EVENT = b"data: [DONE]\n\n"
_PLACEHOLDER = "\x00the text goes here\x00"


def sse_event(content: dict[str, Any]) -> bytes:
    """Return one server-sent event that carries this object."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


class ChunkEncoder:
    """Turns the parts of one choice into events."""

    __slots__ = (
        "_dialect",
        "_head",
        "_index",
        "_is_opened",
        "_prefix",
        "_prompt_ids",
        "_shape",
        "_show",
        "_suffix",
        "_tok",
    )

    def __init__(
        self,
        *,
        dialect: Dialect,
        head: ReplyHead,
        index: int,
        shape: Shape,
        show_logprobs: bool,
        prompt_token_ids: tuple[int, ...] | None,
        tokenizer: ModelTokenizer,
    ) -> None:
        """`prompt_token_ids` go out with the first part; None where they are not to be shown."""
        self._dialect = dialect
        self._head = head
        self._index = index
        self._shape = shape
        self._show = show_logprobs
        self._prompt_ids = prompt_token_ids
        self._tok = tokenizer
        self._is_opened = False
        sample = sse_event(self._chunk(Part(text=_PLACEHOLDER)))
        self._prefix, self._suffix = sample.split(orjson.dumps(_PLACEHOLDER))

    def encode(self, part: Part, usage: dict[str, Any] | None) -> bytes:
        """Return the events of a part; `usage` is this choice's so far, where the client wants it in every chunk."""
        if self._is_opened and not part.tokens and part.finish_reason is None and usage is None:
            return self._prefix + orjson.dumps(part.text) + self._suffix
        opening = b"" if self._is_opened else self._open()
        chunk = self._chunk(part)
        self._prompt_ids = None
        return opening + sse_event(chunk if usage is None else chunk | {"usage": usage})

    def _open(self) -> bytes:
        self._is_opened = True
        chunk = self._dialect.opening_chunk(self._head, self._index)
        return b"" if chunk is None else sse_event(self._with_usage_field(chunk))

    def _chunk(self, part: Part) -> dict[str, Any]:
        choice = Choice(
            index=self._index,
            part=part,
            show_logprobs=self._show and bool(part.tokens),
            show_token_ids=self._shape.return_token_ids,
            prompt_token_ids=self._prompt_ids if self._is_opened else None,
        )
        return self._with_usage_field(self._dialect.chunk(self._head, choice, self._tok))

    def _with_usage_field(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Add the null that OpenAI puts in every chunk of a stream that ends with its usage."""
        return chunk | {"usage": None} if self._shape.include_usage else chunk
