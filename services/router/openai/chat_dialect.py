"""What answers of /v1/chat/completions look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.router.openai.logprobs import chat_logprobs
from services.router.openai.reply import Choice, ReplyHead
from services.router.text.tokenizer import ModelTokenizer


class ChatDialect:
    """OpenAI's chat completions: a streamed choice opens with its role and goes on with deltas."""

    id_prefix = "chatcmpl"

    def opening_chunk(self, head: ReplyHead, index: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return _reply(head, "chat.completion.chunk", [choice])

    def chunk(self, head: ReplyHead, choice: Choice, tokenizer: ModelTokenizer) -> dict[str, Any]:
        content = _ending(choice, tokenizer) | {"delta": {"content": choice.part.text}}
        return _reply(head, "chat.completion.chunk", [content]) | _prompt([choice])

    def usage_chunk(self, head: ReplyHead, usage: dict[str, Any]) -> dict[str, Any]:
        return _reply(head, "chat.completion.chunk", []) | {"usage": usage}

    def whole(
        self, head: ReplyHead, choices: Sequence[Choice], usage: dict[str, Any], tokenizer: ModelTokenizer
    ) -> dict[str, Any]:
        contents = [
            _ending(choice, tokenizer)
            | {"message": {"role": "assistant", "content": choice.part.text, "refusal": None}}
            for choice in choices
        ]
        return _reply(head, "chat.completion", contents) | _prompt(choices) | {"usage": usage}


def _reply(head: ReplyHead, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": head.reply_id,
        "object": kind,
        "created": head.created_s,
        "model": head.model_name,
        "choices": choices,
    }


def _prompt(choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the prompt's ids where they are shown: beside the choices, as all choices of a chat share them."""
    shown = next((choice.prompt_token_ids for choice in choices if choice.prompt_token_ids is not None), None)
    return {} if shown is None else {"prompt_token_ids": shown}


def _ending(choice: Choice, tokenizer: ModelTokenizer) -> dict[str, Any]:
    part = choice.part
    content: dict[str, Any] = {
        "index": choice.index,
        "logprobs": chat_logprobs(part, tokenizer) if choice.show_logprobs else None,
        "finish_reason": part.finish_reason,
        "stop_reason": part.stop_reason,
    }
    if choice.show_token_ids:
        content["token_ids"] = [token.token_id for token in part.tokens]
    if choice.prompt_token_ids is not None:
        content["prompt_token_ids"] = choice.prompt_token_ids
    return content
