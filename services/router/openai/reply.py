"""The parts of a reply that both dialects share, and what a dialect has to say for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.router.answering.part import Part
from services.router.text.tokenizer import ModelTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHead:
    """What stands in every object of one reply."""

    reply_id: str
    created_s: int
    model_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A part of an answer with its place among the choices of the reply. `prompt_token_ids` where they are to be shown."""

    index: int
    part: Part
    show_logprobs: bool
    show_token_ids: bool
    prompt_token_ids: Sequence[int] | None = None


class Dialect(Protocol):
    """How answers look. Everything returned is ready for JSON."""

    @property
    def id_prefix(self) -> str: ...

    def opening_chunk(self, head: ReplyHead, index: int) -> dict[str, Any] | None:
        """Return the chunk that begins a streamed choice, where the dialect has one."""

    def chunk(self, head: ReplyHead, choice: Choice, tokenizer: ModelTokenizer) -> dict[str, Any]:
        """Return one streamed chunk."""

    def usage_chunk(self, head: ReplyHead, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk without choices that ends a stream with its usage."""

    def whole(
        self, head: ReplyHead, choices: Sequence[Choice], usage: dict[str, Any], tokenizer: ModelTokenizer
    ) -> dict[str, Any]:
        """Return a reply in one piece; each choice's part is its whole answer."""


def usage_of(num_prompt_tokens: int, num_output_tokens: int, num_cached_tokens: int) -> dict[str, Any]:
    """Return the usage object; prompts count once, however many branches they have."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_output_tokens,
        "total_tokens": num_prompt_tokens + num_output_tokens,
        "prompt_tokens_details": {"cached_tokens": num_cached_tokens},
    }
