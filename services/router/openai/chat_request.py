"""Reading the body of /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from brigade.core.errors import InvalidRequest
from services.router.config import RouterConfig
from services.router.contracts import ServedModel
from services.router.openai.ask import Ask, Shape
from services.router.openai.common_fields import (
    check_branches,
    check_model,
    refuse_unsupported,
    take_max_tokens,
    take_n,
    take_sampling,
    take_standing,
    take_stop,
    take_stream_options,
)
from services.router.openai.fields import Fields
from services.router.openai.prompts import PromptMaker
from services.router.text.chat_template import ChatTemplate

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles that may speak, and the name that templates know them by: `developer` is OpenAI's later word for `system`."""

_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "continue_final_message": (False,),
    "echo": (False,),
    "documents": ([],),
    "chat_template": (),
}


async def read_chat(
    body: object, *, model: ServedModel, config: RouterConfig, prompts: PromptMaker, template: ChatTemplate | None
) -> Ask:
    """Return what the body asks for. Raises InvalidRequest naming the field."""
    fields = Fields.of(body)
    check_model(fields, model)
    if template is None:
        raise InvalidRequest(f"the model {model.name} has no chat template", field="messages", code="no_chat_template")
    messages = take_messages(fields, config)
    n = take_n(fields, config)
    check_branches(fields, n, config)
    num_logprobs = _take_logprobs(fields, config)
    options = take_stream_options(fields)
    shape = Shape(
        stream=options.stream,
        include_usage=options.include_usage,
        continuous_usage=options.continuous_usage,
        return_token_ids=fields.take_bool("return_token_ids"),
        skip_special_tokens=fields.take_bool("skip_special_tokens", True),
    )
    max_tokens = take_max_tokens(fields)
    add_special_tokens = fields.take_bool("add_special_tokens", False)
    add_generation_prompt = fields.take_bool("add_generation_prompt", True)
    variables = fields.take("chat_template_kwargs")
    if variables is not None and not isinstance(variables, dict):
        raise fields.error("chat_template_kwargs", "must be an object", code="invalid_type")
    sampling = take_sampling(fields, model.sampling_defaults, num_logprobs, model.vocab_size)
    stop = take_stop(fields, config, model)
    standing = take_standing(fields, config)
    for key, neutral in _NEUTRAL_VALUES.items():
        fields.only_neutral(key, *neutral)
    refuse_unsupported(fields)
    fields.finish()
    prompt = await prompts.make(
        template.render(messages, add_generation_prompt=add_generation_prompt, variables=variables),
        field="messages",
        add_special_tokens=add_special_tokens,
        max_tokens=max_tokens,
        default_max_tokens=None,
    )
    if stop.min_tokens > prompt.max_tokens:
        raise fields.error("min_tokens", "is above max_tokens")
    return Ask(prompts=(prompt,), n=n, sampling=sampling, stop=stop, shape=shape, standing=standing)


def take_messages(fields: Fields, config: RouterConfig) -> list[dict[str, Any]]:
    """Take the conversation as templates want it: role, text content, and a name where one is given."""
    messages = fields.take_list("messages", max_items=config.max_messages)
    if not messages:
        raise fields.error("messages", "must have at least one message", code="missing_required_parameter")
    return [_message(Fields.of(message, path=f"messages[{place}]")) for place, message in enumerate(messages)]


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.take_str("role", max_chars=64)
    if role not in _ROLES:
        raise fields.error("role", f"must be one of {', '.join(_ROLES)}")
    message: dict[str, Any] = {"role": _ROLES[role], "content": _content(fields)}
    name = fields.take_str("name", max_chars=256)
    if name is not None:
        message["name"] = name
    for key in ("tool_calls", "function_call", "refusal", "audio", "annotations", "reasoning", "reasoning_content"):
        fields.only_neutral(key, [])
    fields.finish()
    return message


def _content(fields: Fields) -> str:
    """Return a message's text; text parts are joined by line breaks, as vLLM does for templates that take text."""
    value = fields.take("content")
    if isinstance(value, str):
        return value
    if value is None:
        raise fields.error("content", "is required", code="missing_required_parameter")
    if not isinstance(value, list) or not value:
        raise fields.error("content", "must be a text or an array of text parts", code="invalid_type")
    texts = []
    for place, part in enumerate(value):
        part_fields = Fields.of(part, path=f"{fields.name('content')}[{place}]")
        if part_fields.take("type") != "text":
            raise part_fields.error("type", "must be 'text': other content is not supported", code="unsupported_value")
        text = part_fields.take("text")
        if not isinstance(text, str):
            raise part_fields.error("text", "must be a string", code="invalid_type")
        part_fields.finish()
        texts.append(text)
    return "\n".join(texts)


def _take_logprobs(fields: Fields, config: RouterConfig) -> int | None:
    wanted = fields.take_bool("logprobs")
    num_top = fields.take_int("top_logprobs", low=0, high=config.max_logprobs)
    if num_top and not wanted:
        raise fields.error("top_logprobs", "is only allowed when logprobs is true")
    return (num_top or 0) if wanted else None
