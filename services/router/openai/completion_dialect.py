"""What answers of /v1/completions look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.router.openai.logprobs import completion_logprobs
from services.router.openai.reply import Choice, ReplyHead
from services.router.text.tokenizer import ModelTokenizer


class CompletionDialect:
    """OpenAI's completions; chunks and whole replies have the same form."""

    id_prefix = "cmpl"

    def opening_chunk(self, head: ReplyHead, index: int) -> dict[str, Any] | None:
        return None

    def chunk(self, head: ReplyHead, choice: Choice, tokenizer: ModelTokenizer) -> dict[str, Any]:
        return _reply(head, [_choice(choice, tokenizer)])

    def usage_chunk(self, head: ReplyHead, usage: dict[str, Any]) -> dict[str, Any]:
        return _reply(head, []) | {"usage": usage}

    def whole(
        self, head: ReplyHead, choices: Sequence[Choice], usage: dict[str, Any], tokenizer: ModelTokenizer
    ) -> dict[str, Any]:
        return _reply(head, [_choice(choice, tokenizer) for choice in choices]) | {"usage": usage}


def _reply(head: ReplyHead, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": head.reply_id,
        "object": "text_completion",
        "created": head.created_s,
        "model": head.model_name,
        "choices": choices,
    }


def _choice(choice: Choice, tokenizer: ModelTokenizer) -> dict[str, Any]:
    part = choice.part
    content: dict[str, Any] = {
        "index": choice.index,
        "text": part.text,
        "logprobs": completion_logprobs(part, tokenizer) if choice.show_logprobs else None,
        "finish_reason": part.finish_reason,
        "stop_reason": part.stop_reason,
    }
    if choice.show_token_ids:
        content["token_ids"] = [token.token_id for token in part.tokens]
    if choice.prompt_token_ids is not None:
        content["prompt_token_ids"] = choice.prompt_token_ids
    return content
