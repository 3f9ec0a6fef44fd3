"""Fields that both dialects share: sampling, stopping, standing and the streaming options."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeVar

from brigade.core.errors import InvalidRequest
from brigade.core.sampling import SamplingParams
from services.router.config import RouterConfig
from services.router.contracts import SamplingDefaults, ServedModel
from services.router.openai.ask import Standing, StopRules
from services.router.openai.fields import Fields

GREEDY_BELOW = 1e-5
"""Temperatures below this count as 0, as in vLLM: dividing by them would overflow."""

_T = TypeVar("_T")
_INT32 = 2**31 - 1
_SEED_MASK = 2**63 - 1
_TIER_CLASSES = {"priority": "interactive", "flex": "batch"}
_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "logit_bias": ({},),
    "metadata": ({},),
    "store": (False,),
    "use_beam_search": (False,),
    "length_penalty": (1.0, 1),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "spaces_between_special_tokens": (True,),
    "response_format": ({"type": "text"},),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    stream: bool
    include_usage: bool
    continuous_usage: bool


def check_model(fields: Fields, model: ServedModel) -> None:
    """Take `model`; another one than ours is a 404, a missing one means ours."""
    name = fields.take_str("model", max_chars=4096)
    if name is not None and name != model.name:
        raise unknown_model(name)


def unknown_model(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"the model {name[:256]!r} does not exist here", field="model", code="model_not_found", status=404
    )


def take_sampling(
    fields: Fields, defaults: SamplingDefaults, num_logprobs: int | None, vocab_size: int
) -> SamplingParams:
    """Take how tokens are drawn; absent values come from the model's defaults, an absent seed from chance."""
    temperature = _or(fields.take_float("temperature", low=0, high=2), defaults.temperature)
    seed = fields.take_int("seed", low=-(2**63), high=2**63 - 1)
    return SamplingParams(
        temperature=0.0 if temperature < GREEDY_BELOW else temperature,
        top_p=_or(fields.take_float("top_p", low=0, high=1, above_low=True), defaults.top_p),
        top_k=max(0, _or(fields.take_int("top_k", low=-1, high=vocab_size), defaults.top_k)),
        min_p=_or(fields.take_float("min_p", low=0, high=1), defaults.min_p),
        seed=secrets.randbits(63) if seed is None else seed & _SEED_MASK,
        presence_penalty=_or(fields.take_float("presence_penalty", low=-2, high=2), 0.0),
        frequency_penalty=_or(fields.take_float("frequency_penalty", low=-2, high=2), 0.0),
        repetition_penalty=_or(
            fields.take_float("repetition_penalty", low=0, high=10, above_low=True), defaults.repetition_penalty
        ),
        num_logprobs=num_logprobs,
    )


def branch_seed(seed: int, index: int) -> int:
    """Return the seed of branch `index` of a prompt, so that branches differ and each can be had again."""
    return (seed + index) & _SEED_MASK


def take_stop(fields: Fields, config: RouterConfig, model: ServedModel) -> StopRules:
    """Take all that ends an answer early; the model's end ids count unless the client ignores them."""
    ids = fields.take_list("stop_token_ids", max_items=config.max_stops) or []
    for token_id in ids:
        check_token_id(fields, "stop_token_ids", token_id, model.vocab_size)
    end_ids = frozenset[int]() if fields.take_bool("ignore_eos") else frozenset(model.eos_token_ids)
    return StopRules(
        strings=_take_stop_strings(fields, config),
        token_ids=end_ids | frozenset(ids),
        reported_token_ids=frozenset(ids) - end_ids,
        min_tokens=_or(fields.take_int("min_tokens", low=0, high=_INT32), 0),
        is_included=fields.take_bool("include_stop_str_in_output"),
    )


def take_standing(fields: Fields, config: RouterConfig) -> Standing:
    """Take who comes first. `priority` (lower first) wins over `service_tier`: below 0 interactive, above 0 batch."""
    tier = fields.take_str("service_tier", max_chars=32)
    if tier not in (None, "auto", "default", *_TIER_CLASSES):
        raise fields.error("service_tier", "must be auto, default, flex or priority")
    priority = fields.take_int("priority", low=-(2**31), high=_INT32)
    priority_class = _TIER_CLASSES.get(tier or "", config.default_class)
    if priority:
        priority_class = "interactive" if priority < 0 else "batch"
    salt = fields.take_str("cache_salt", max_chars=256)
    if salt == "":
        raise fields.error("cache_salt", "must not be empty")
    return Standing(priority_class=priority_class, priority=priority or 0, cache_salt=salt or "")


def take_stream_options(fields: Fields) -> StreamOptions:
    stream = fields.take_bool("stream")
    options = fields.take_object("stream_options")
    if options is None:
        return StreamOptions(stream=stream, include_usage=False, continuous_usage=False)
    if not stream:
        raise fields.error("stream_options", "is only allowed when stream is true")
    include_usage = options.take_bool("include_usage")
    continuous_usage = options.take_bool("continuous_usage_stats")
    options.only_neutral("include_obfuscation", False)
    options.finish()
    return StreamOptions(
        stream=stream, include_usage=include_usage, continuous_usage=include_usage and continuous_usage
    )


def take_n(fields: Fields, config: RouterConfig) -> int:
    return _or(fields.take_int("n", low=1, high=config.max_n), 1)


def check_branches(fields: Fields, num_branches: int, config: RouterConfig) -> None:
    """Refuse more answers than one HTTP request may start (prompts times n)."""
    if num_branches > config.max_branches:
        raise fields.error("n", f"times the number of prompts is above {config.max_branches}")


def take_max_tokens(fields: Fields) -> int | None:
    """Take max_completion_tokens, or its older name; both are fine when they agree, as some load generators send both."""
    newer = fields.take_int("max_completion_tokens", low=1, high=_INT32)
    older = fields.take_int("max_tokens", low=1, high=_INT32)
    if newer is not None and older is not None and newer != older:
        raise fields.error("max_tokens", "differs from max_completion_tokens")
    return older if newer is None else newer


def refuse_unsupported(fields: Fields) -> None:
    """Refuse what OpenAI or vLLM know and we do not, unless it asks for nothing; `user` is taken and not used."""
    fields.take_str("user", max_chars=1024)
    for key, neutral in _NEUTRAL_VALUES.items():
        fields.only_neutral(key, *neutral)


def check_token_id(fields: Fields, key: str, token_id: object, vocab_size: int) -> None:
    if type(token_id) is not int:
        raise fields.error(key, "must hold token ids (integers)", code="invalid_type")
    if not 0 <= token_id < vocab_size:
        raise fields.error(key, f"holds token id {token_id}, outside the vocabulary of {vocab_size}")


def _take_stop_strings(fields: Fields, config: RouterConfig) -> tuple[str, ...]:
    value = fields.take("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.error("stop", "must be a string or an array of strings", code="invalid_type")
    if len(stops) > config.max_stops:
        raise fields.error("stop", f"must have at most {config.max_stops} items")
    if not all(0 < len(stop) <= config.max_stop_chars for stop in stops):
        raise fields.error("stop", f"must hold strings of 1 to {config.max_stop_chars} characters")
    return tuple(dict.fromkeys(stops))


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value
