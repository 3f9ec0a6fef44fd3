"""Prompts: from what the client sent to token ids that fit the context and the pools."""

from __future__ import annotations

from typing import Any

from brigade.core.errors import InvalidRequest
from services.router.config import RouterConfig
from services.router.contracts import ServedModel
from services.router.openai.ask import Prompt
from services.router.openai.common_fields import check_token_id
from services.router.openai.fields import Fields
from services.router.text.tokenizer import ModelTokenizer

RawPrompt = str | list[int]
"""A prompt as the client sent it: text, or token ids."""


def take_prompts(fields: Fields, key: str, config: RouterConfig, vocab_size: int) -> list[RawPrompt]:
    """Take a text, a list of texts, a list of token ids or a list of those."""
    value = fields.take(key)
    if value is None:
        raise fields.error(key, "is required", code="missing_required_parameter")
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        prompts = [value]
    elif isinstance(value, list) and value:
        prompts = value
    else:
        raise fields.error(key, "must be a text, token ids, or a list of those with at least one item")
    if len(prompts) > config.max_prompts:
        raise fields.error(key, f"must hold at most {config.max_prompts} prompts")
    for prompt in prompts:
        _check_prompt(fields, key, prompt, vocab_size)
    if len({type(prompt) for prompt in prompts}) > 1:
        raise fields.error(key, "must not mix texts and token ids", code="invalid_type")
    return prompts


def _check_prompt(fields: Fields, key: str, prompt: Any, vocab_size: int) -> None:
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, list):
        raise fields.error(key, "must be a text, token ids, or a list of those", code="invalid_type")
    if not prompt:
        raise fields.error(key, "must not be empty")
    # one pass in C for the usual case; the slow path finds the culprit
    if set(map(type, prompt)) != {int} or min(prompt) < 0 or max(prompt) >= vocab_size:
        for token_id in prompt:
            check_token_id(fields, key, token_id, vocab_size)


class PromptMaker:
    """Encodes prompts and checks that prompt and answer fit."""

    def __init__(self, *, tokenizer: ModelTokenizer, model: ServedModel, config: RouterConfig) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._config = config

    async def make(
        self,
        raw: RawPrompt,
        *,
        field: str,
        add_special_tokens: bool,
        max_tokens: int | None,
        default_max_tokens: int | None,
    ) -> Prompt:
        """Return one prompt with its bound on the answer.

        `max_tokens` is the client's wish and must fit; without one the answer may have `default_max_tokens` (None: all
        the room that is left), cut to the room. Raises InvalidRequest naming `field` or max_tokens.
        """
        text = raw if isinstance(raw, str) else None
        ids = await self._tokenizer.encode(raw, add_special_tokens=add_special_tokens) if isinstance(raw, str) else raw
        if not ids:
            raise InvalidRequest(f"{field} is empty: it has no tokens", field=field, code="invalid_value")
        if max(ids) >= self._model.vocab_size:
            raise InvalidRequest(f"{field} holds a token that the model does not know", field=field)
        room = self._room(len(ids), field)
        if max_tokens is not None and max_tokens > room:
            raise InvalidRequest(
                f"max_tokens {max_tokens} is too large: {len(ids)} prompt tokens leave room for {room} "
                f"of {self._limit()[0]} tokens ({self._limit()[1]})",
                field="max_tokens",
                code="context_length_exceeded",
            )
        allowed = max_tokens if max_tokens is not None else min(room, default_max_tokens or room)
        return Prompt(token_ids=tuple(ids), text=text, max_tokens=allowed)

    def _limit(self) -> tuple[int, str]:
        """Return the most tokens of prompt and answer together, and what sets this limit."""
        pool = self._model.pool_limit_tokens()
        context = self._model.max_model_len_tokens
        return (context, "the model's context") if pool is None or pool >= context else (pool, "the workers' KV pools")

    def _room(self, num_prompt_tokens: int, field: str) -> int:
        limit, why = self._limit()
        longest = min(limit - 1, self._config.max_prompt_tokens or limit)
        if num_prompt_tokens > longest:
            raise InvalidRequest(
                f"{field} has {num_prompt_tokens} tokens; at most {longest} are allowed "
                f"({limit} for prompt and answer: {why})",
                field=field,
                code="context_length_exceeded",
            )
        return limit - num_prompt_tokens
