"""What bodies mean: defaults, ranges, and a 400 that names the field for everything else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.router_tokenizers import DEMO_MODEL

from brigade.core.errors import InvalidRequest
from services.router.config import RouterConfig
from services.router.contracts import SamplingDefaults, ServedModel
from services.router.model_folder import read_served_model
from services.router.openai.ask import Ask
from services.router.openai.chat_request import read_chat
from services.router.openai.completion_request import read_completion
from services.router.openai.prompts import PromptMaker
from services.router.text.tokenizer import ModelTokenizer

CONFIG = RouterConfig(max_n=4, max_branches=8, max_prompts=6)
TOKENIZER = ModelTokenizer.from_folder(DEMO_MODEL, encode_inline_chars=200)
MODEL = read_served_model(DEMO_MODEL)
HI = [{"role": "user", "content": "hi"}]


async def completion(model: ServedModel = MODEL, **body: Any) -> Ask:
    prompts = PromptMaker(tokenizer=TOKENIZER, model=model, config=CONFIG)
    return await read_completion({"prompt": "Once", **body}, model=model, config=CONFIG, prompts=prompts)


async def chat(model: ServedModel = MODEL, **body: Any) -> Ask:
    prompts = PromptMaker(tokenizer=TOKENIZER, model=model, config=CONFIG)
    template = TOKENIZER.chat_template
    return await read_chat({"messages": HI, **body}, model=model, config=CONFIG, prompts=prompts, template=template)


async def test_an_empty_completion_ask_has_the_documented_defaults() -> None:
    ask = await completion(model=replace(MODEL, sampling_defaults=SamplingDefaults()))
    assert (ask.n, ask.prompts[0].max_tokens, ask.prompts[0].text) == (1, 16, "Once")
    assert (ask.sampling.temperature, ask.sampling.top_p, ask.sampling.top_k, ask.sampling.min_p) == (1.0, 1.0, 0, 0.0)
    assert (ask.sampling.repetition_penalty, ask.sampling.num_logprobs) == (1.0, None)
    assert ask.stop.token_ids == {0, 2}
    assert (ask.standing.priority_class, ask.standing.priority) == ("standard", 0)
    assert not ask.shape.stream
    assert ask.shape.skip_special_tokens


async def test_the_models_sampling_defaults_hold_until_the_client_says_otherwise() -> None:
    """As vLLM: generation_config.json fills what the body leaves out, null included."""
    model = replace(MODEL, sampling_defaults=SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20))
    ask = await chat(model=model, top_k=None, temperature=0)
    assert (ask.sampling.temperature, ask.sampling.top_p, ask.sampling.top_k) == (0.0, 0.9, 20)
    assert (await chat(model=model, top_k=-1)).sampling.top_k == 0


async def test_an_answer_without_bound_may_fill_the_context_or_the_pool() -> None:
    num_prompt = len((await chat()).prompts[0].token_ids)
    assert (await chat()).prompts[0].max_tokens == 2048 - num_prompt
    small = replace(MODEL, pool_limit_tokens=lambda: 100)
    assert (await chat(model=small)).prompts[0].max_tokens == 100 - num_prompt
    assert (await completion(model=small, prompt=[5] * 95)).prompts[0].max_tokens == 5
    assert (await chat(max_tokens=7)).prompts[0].max_tokens == 7
    assert (await chat(max_completion_tokens=7, max_tokens=7)).prompts[0].max_tokens == 7
    assert (await completion(max_completion_tokens=7)).prompts[0].max_tokens == 7


async def test_the_pool_limit_is_read_at_each_ask() -> None:
    """Workers join and leave, so what fits changes while the router runs."""
    limits = [40]
    model = replace(MODEL, pool_limit_tokens=lambda: limits[0])
    with pytest.raises(InvalidRequest, match="the workers' KV pools"):
        await completion(model=model, prompt=[5] * 50)
    limits[0] = 60
    assert (await completion(model=model, prompt=[5] * 50)).prompts[0].max_tokens == 10


async def test_prompts_may_be_texts_or_ids_alone_or_in_lists() -> None:
    ids = TOKENIZER.encode_now("Once", add_special_tokens=True)
    for prompt, expected in [("Once", [ids]), (["Once", "Once"], [ids, ids]), (ids, [ids]), ([ids, [5]], [ids, [5]])]:
        assert [list(made.token_ids) for made in (await completion(prompt=prompt)).prompts] == expected


async def test_long_prompts_are_encoded_like_short_ones() -> None:
    """Above a size encoding moves to a thread; the ids are the same."""
    text = "Once upon a time. " * 50
    assert list((await completion(prompt=text)).prompts[0].token_ids) == TOKENIZER.encode_now(
        text, add_special_tokens=True
    )


async def test_branches_of_one_seed_differ_and_any_64_bit_seed_is_fine() -> None:
    assert (await completion(seed=5)).sampling.seed == 5
    assert 0 <= (await completion(seed=-(2**63))).sampling.seed < 2**63
    assert (await completion()).sampling.seed != (await completion()).sampling.seed


async def test_stops_are_strings_or_lists_and_ids_join_the_models() -> None:
    ask = await completion(stop="END", stop_token_ids=[9, 2])
    assert ask.stop.strings == ("END",)
    assert ask.stop.token_ids == {0, 2, 9}
    assert ask.stop.reported_token_ids == {9}
    ask = await completion(stop=["a", "b", "a"], stop_token_ids=[9], ignore_eos=True)
    assert (ask.stop.strings, ask.stop.token_ids) == (("a", "b"), {9})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("standard", 0)),
        ({"priority": 0}, ("standard", 0)),
        ({"priority": -3}, ("interactive", -3)),
        ({"priority": 7}, ("batch", 7)),
        ({"service_tier": "flex"}, ("batch", 0)),
        ({"service_tier": "priority"}, ("interactive", 0)),
        ({"service_tier": "flex", "priority": -1}, ("interactive", -1)),
        ({"service_tier": "auto"}, ("standard", 0)),
    ],
)
async def test_lower_priorities_come_first_and_win_over_the_tier(
    fields: dict[str, Any], expected: tuple[str, int]
) -> None:
    standing = (await completion(**fields)).standing
    assert (standing.priority_class, standing.priority) == expected


async def test_text_parts_and_the_developer_role_are_understood() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    one = await chat(messages=[{"role": "developer", "content": parts}])
    other = await chat(messages=[{"role": "system", "content": "a\nb"}])
    assert one.prompts == other.prompts


async def test_neutral_values_of_unsupported_fields_are_accepted() -> None:
    """Clients that fill in every field of OpenAI's with its default ask for nothing that we lack."""
    await completion(best_of=1, suffix=None, logit_bias={}, user="u", echo=False, store=False)
    await chat(tools=[], tool_choice="none", response_format={"type": "text"}, logit_bias=None, modalities=["text"])
    options = {"include_usage": True, "continuous_usage_stats": True, "include_obfuscation": False}
    assert (await chat(stream=True, stream_options=options)).shape.continuous_usage


BAD_COMMON: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.0}, "top_k"),
    ({"top_k": 2**40}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"n": 0}, "n"),
    ({"n": 5}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 5000}, "max_tokens"),
    ({"max_tokens": 1e30}, "max_tokens"),
    ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": "x" * 1001}, "stop"),
    ({"stop_token_ids": 5}, "stop_token_ids"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"stop_token_ids": [2048]}, "stop_token_ids"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"priority": "high"}, "priority"),
    ({"service_tier": "gold"}, "service_tier"),
    ({"cache_salt": ""}, "cache_salt"),
    ({"cache_salt": 5}, "cache_salt"),
    ({"user": 5}, "user"),
    ({"best_of": 2}, "best_of"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"metadata": {"a": "b"}}, "metadata"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"guided_json": {}}, "guided_json"),
    ({"no_such_field": None}, "no_such_field"),
    ({"return_token_ids": "x"}, "return_token_ids"),
    ({"add_special_tokens": "x"}, "add_special_tokens"),
]
BAD_COMPLETION: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt"),
    ({"prompt": ["a", [1]]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [1.0]}, "prompt"),
    ({"prompt": [1, 2.0]}, "prompt"),
    ({"prompt": [None]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [2048]}, "prompt"),
    ({"prompt": [5, 10**30]}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": [5] * 2048}, "prompt"),
    ({"prompt": "word " * 3000}, "prompt"),
    ({"prompt": ["a"] * 7}, "prompt"),
    ({"prompt": ["a"] * 3, "n": 3}, "n"),
    ({"prompt": [5] * 2040, "max_tokens": 9}, "max_tokens"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": 1, "echo": True}, "logprobs"),
    ({"suffix": "x"}, "suffix"),
    ({"messages": HI}, "messages"),
]
BAD_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "hi", "tool_call_id": "x"}]}, "messages[0].role"),
    ({"messages": [*HI, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "user", "content": "x", "mood": "good"}]}, "messages[0].mood"),
    ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{}]}, "functions"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"prompt": "x"}, "prompt"),
    ({"echo": True}, "echo"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_COMMON + BAD_COMPLETION, ids=str)
async def test_a_bad_completion_body_is_refused_by_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await completion(**fields)
    assert (caught.value.field, caught.value.status) == (named, 400)
    assert caught.value.code


@pytest.mark.parametrize(("fields", "named"), BAD_COMMON + BAD_CHAT, ids=str)
async def test_a_bad_chat_body_is_refused_by_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await chat(**fields)
    assert (caught.value.field, caught.value.status) == (named, 400)


@pytest.mark.parametrize("body", [None, [], "text", 5, True])
async def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    prompts = PromptMaker(tokenizer=TOKENIZER, model=MODEL, config=CONFIG)
    with pytest.raises(InvalidRequest, match="must be a JSON object"):
        await read_completion(body, model=MODEL, config=CONFIG, prompts=prompts)


async def test_an_unknown_model_is_not_found() -> None:
    prompts = PromptMaker(tokenizer=TOKENIZER, model=MODEL, config=CONFIG)
    with pytest.raises(InvalidRequest) as caught:
        await read_completion({"model": "gpt-9", "prompt": "a"}, model=MODEL, config=CONFIG, prompts=prompts)
    assert (caught.value.status, caught.value.code, caught.value.field) == (404, "model_not_found", "model")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted({key for fields, _ in BAD_COMMON + BAD_COMPLETION + BAD_CHAT for key in fields} | {"model"})
BODIES = st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=5)


@settings(max_examples=200, deadline=None)
@given(BODIES, st.booleans())
def test_no_json_body_is_worse_than_refused(body: dict[str, Any], is_chat: bool) -> None:
    """Whatever the values, a body becomes an ask or a 4xx: nothing a client can send is a crash."""
    prompts = PromptMaker(tokenizer=TOKENIZER, model=MODEL, config=CONFIG)
    common = {"model": MODEL, "config": CONFIG, "prompts": prompts}
    asked = (
        read_chat({"messages": HI} | body, template=TOKENIZER.chat_template, **common)
        if is_chat
        else read_completion({"prompt": "a"} | body, **common)
    )
    outcome: Ask | InvalidRequest
    try:
        outcome = asyncio.run(asked)
    except InvalidRequest as error:
        outcome = error
    assert isinstance(outcome, Ask) or 400 <= outcome.status < 500
