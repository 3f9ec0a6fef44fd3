"""Reading the body of /v1/completions."""

from __future__ import annotations

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
from services.router.openai.prompts import PromptMaker, take_prompts

DEFAULT_MAX_TOKENS = 16


async def read_completion(body: object, *, model: ServedModel, config: RouterConfig, prompts: PromptMaker) -> Ask:
    """Return what the body asks for. Raises InvalidRequest naming the field."""
    fields = Fields.of(body)
    check_model(fields, model)
    raw_prompts = take_prompts(fields, "prompt", config, model.vocab_size)
    n = take_n(fields, config)
    check_branches(fields, len(raw_prompts) * n, config)
    num_logprobs = fields.take_int("logprobs", low=0, high=config.max_logprobs)
    options = take_stream_options(fields)
    shape = Shape(
        stream=options.stream,
        include_usage=options.include_usage,
        continuous_usage=options.continuous_usage,
        echo=fields.take_bool("echo"),
        return_token_ids=fields.take_bool("return_token_ids"),
        skip_special_tokens=fields.take_bool("skip_special_tokens", True),
    )
    if shape.echo and num_logprobs is not None:
        raise fields.error("logprobs", "is not supported together with echo", code="unsupported_parameter")
    max_tokens = take_max_tokens(fields)
    add_special_tokens = fields.take_bool("add_special_tokens", True)
    sampling = take_sampling(fields, model.sampling_defaults, num_logprobs, model.vocab_size)
    stop = take_stop(fields, config, model)
    standing = take_standing(fields, config)
    fields.only_neutral("suffix", "")
    refuse_unsupported(fields)
    fields.finish()
    made = [
        await prompts.make(
            raw,
            field="prompt",
            add_special_tokens=add_special_tokens,
            max_tokens=max_tokens,
            default_max_tokens=max(DEFAULT_MAX_TOKENS, stop.min_tokens),
        )
        for raw in raw_prompts
    ]
    if any(stop.min_tokens > prompt.max_tokens for prompt in made):
        raise fields.error("min_tokens", "is above max_tokens")
    return Ask(prompts=tuple(made), n=n, sampling=sampling, stop=stop, shape=shape, standing=standing)
