"""Real clients, unchanged: the openai package and curl."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import openai
import pytest
from support.router_echo_owner import Script, echo_script, wait_after
from support.router_server import TOKENIZER, Serving, serve_router
from support.waiting import wait_until

from brigade.core.errors import BrigadeError, Unavailable
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled
from services.router.config import RouterConfig

TEXT = "Once upon a time, a kind fox named Zo\u00eb \U0001f98a lived in a meadow."
HI = [{"role": "user", "content": "hi"}]


def saying(text: str) -> Script:
    """Return a script that says a text and then the end token."""
    ids = [*TOKENIZER.encode_now(text, add_special_tokens=False), 2]

    def script(spec: RequestSpec) -> Iterator[Sampled | BrigadeError]:
        wanted = spec.sampling.num_logprobs
        for token_id in ids:
            top = tuple((token_id + rank, -0.25 - rank) for rank in range(wanted or 0))
            yield Sampled(token_id=token_id, logprob=None if wanted is None else -0.25, top=top)

    return script


@asynccontextmanager
async def openai_client(
    script: Script = echo_script,
    *,
    pace: Callable[[], Awaitable[None]] | None = None,
    config: RouterConfig | None = None,
    api_key: str = "none",
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Serving]]:
    async with (
        serve_router(script, pace=pace, config=config) as serving,
        openai.AsyncOpenAI(base_url=f"{serving.url}/v1", api_key=api_key, max_retries=0) as client,
    ):
        yield client, serving


async def test_a_chat_answer_in_one_piece() -> None:
    async with openai_client(saying(TEXT)) as (client, _):
        answer = await client.chat.completions.create(model="demo", messages=HI)
    assert answer.object == "chat.completion"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert answer.usage is not None
    num_tokens = len(TOKENIZER.encode_now(TEXT, add_special_tokens=False)) + 1
    assert answer.usage.completion_tokens == num_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + num_tokens


async def test_a_streamed_chat_of_two_branches_with_usage() -> None:
    async with openai_client(saying(TEXT)) as (client, _):
        stream = await client.chat.completions.create(
            model="demo", messages=HI, n=2, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    *parts, usage = chunks
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 2 * (len(TOKENIZER.encode_now(TEXT, add_special_tokens=False)) + 1)
    for index in (0, 1):
        choices = [part.choices[0] for part in parts if part.choices[0].index == index]
        assert choices[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in choices) == TEXT
        assert [choice.finish_reason for choice in choices][-1] == "stop"
        assert all("\ufffd" not in (choice.delta.content or "") for choice in choices)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_packages_own_stream_helper_puts_an_answer_together() -> None:
    async with openai_client(saying(TEXT)) as (client, _):
        async with client.chat.completions.stream(model="demo", messages=HI, logprobs=True) as stream:
            async for _ in stream:
                pass
            answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    assert b"".join(bytes(token.bytes or []) for token in answer.choices[0].logprobs.content) == (
        TEXT.encode() + b"<|im_end|>"
    )


async def test_completions_whole_and_streamed_agree() -> None:
    async with openai_client(saying(TEXT)) as (client, _):
        ask = {"model": "demo", "prompt": ["a", "b"], "max_tokens": 9, "n": 2, "logprobs": 2}
        whole = await client.completions.create(**ask)
        streamed = ["", "", "", ""]
        tokens: list[list[str]] = [[], [], [], []]
        async for chunk in await client.completions.create(**ask, stream=True):
            [choice] = chunk.choices
            streamed[choice.index] += choice.text
            assert choice.logprobs is not None
            tokens[choice.index] += choice.logprobs.tokens or []
    assert [choice.text for choice in whole.choices] == streamed
    assert [choice.finish_reason for choice in whole.choices] == ["length"] * 4
    for choice in whole.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == tokens[choice.index]
        assert choice.logprobs.token_logprobs == [-0.25] * 9
        assert [len(top) for top in choice.logprobs.top_logprobs or []] == [2] * 9
        assert [
            choice.text[offset:].startswith(token)
            for offset, token in zip(choice.logprobs.text_offset or [], choice.logprobs.tokens, strict=True)
        ] == [True] * 9


async def test_top_logprobs_of_a_chat() -> None:
    async with openai_client(saying("a b")) as (client, _):
        answer = await client.chat.completions.create(model="demo", messages=HI, logprobs=True, top_logprobs=3)
    assert answer.choices[0].logprobs is not None
    for token in answer.choices[0].logprobs.content or []:
        assert token.logprob == -0.25
        assert [top.logprob for top in token.top_logprobs] == [-0.25, -1.25, -2.25]
        assert token.top_logprobs[0].token == token.token


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_string_that_crosses_tokens(stream: bool) -> None:
    async with openai_client(saying(TEXT)) as (client, _):
        ask = {"model": "demo", "messages": HI, "stop": ["x named", "fox na"]}
        if stream:
            chunks = [chunk async for chunk in await client.chat.completions.create(**ask, stream=True)]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            answer = await client.chat.completions.create(**ask)
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == ("Once upon a time, a kind ", "stop")


async def test_vllms_extra_fields_travel_in_the_extra_body() -> None:
    async with openai_client() as (client, serving):
        extra = {
            "top_k": 5,
            "min_p": 0.1,
            "min_tokens": 2,
            "ignore_eos": True,
            "priority": -2,
            "return_token_ids": True,
        }
        answer = await client.completions.create(
            model="demo", prompt="Once upon", max_tokens=3, seed=7, extra_body=extra | {"repetition_penalty": 1.1}
        )
    [spec] = serving.owner.submitted
    assert (spec.sampling.top_k, spec.sampling.min_p, spec.sampling.repetition_penalty) == (5, 0.1, 1.1)
    assert (spec.stop.min_tokens, spec.stop.stop_token_ids, spec.sampling.seed) == (2, frozenset(), 7)
    assert (spec.priority_class, spec.priority) == ("interactive", -2)
    assert answer.choices[0].model_extra is not None
    assert len(answer.choices[0].model_extra["token_ids"]) == 3


async def test_models() -> None:
    async with openai_client() as (client, _):
        [model] = (await client.models.list()).data
        assert model.id == "demo"
        assert (await client.models.retrieve("demo")).id == "demo"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")


async def test_errors_become_the_packages_exceptions() -> None:
    config = RouterConfig(api_key="right", max_unfinished=1)
    async with openai_client(config=config, api_key="right") as (client, serving):
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(
                model="demo", messages=HI, tools=[{"type": "function", "function": {"name": "f"}}]
            )
        assert (bad.value.param, bad.value.code, bad.value.type) == (
            "tools",
            "unsupported_parameter",
            "invalid_request_error",
        )
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="gpt", messages=HI)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.RateLimitError) as full:
            await client.completions.create(model="demo", prompt="a", n=2)
        assert full.value.response.headers["retry-after"] == "1"
        serving.owner.why_not_ready = "no worker lives"
        with pytest.raises(openai.InternalServerError) as away:
            await client.completions.create(model="demo", prompt="a")
        assert (away.value.status_code, away.value.message.count("no worker lives")) == (503, 1)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
        assert serving.owner.submitted == []


async def test_an_error_within_a_stream_is_raised_by_the_package() -> None:
    def script(spec: RequestSpec) -> Iterator[Sampled | BrigadeError]:
        yield Sampled(token_id=spec.prompt_token_ids[0])
        yield Unavailable("all workers have gone", retry_after_s=1)

    gate = asyncio.Event()
    async with openai_client(script, pace=wait_after(1, gate)) as (client, _):
        stream = await client.completions.create(model="demo", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="all workers have gone"):
            async for _ in stream:
                gate.set()


async def test_closing_a_stream_cancels_the_request() -> None:
    async with openai_client() as (client, serving):
        stream = await client.chat.completions.create(model="demo", messages=HI, max_tokens=2000, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await wait_until(lambda: serving.owner.num_unfinished == 0, deadline_s=2)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_shows_events_as_they_come() -> None:
    """`curl -N` prints each event when it is sent: the first is there while the answer still waits."""
    gate = asyncio.Event()
    async with serve_router(pace=wait_after(1, gate)) as serving:
        body = json.dumps({"prompt": "Once upon", "max_tokens": 2, "stream": True})
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sN", f"{serving.url}/v1/completions", "-H", "Content-Type: application/json", "-d", body),
            stdout=asyncio.subprocess.PIPE,
        )
        assert curl.stdout is not None
        async with asyncio.timeout(10):
            first = await curl.stdout.readuntil(b"\n\n")
            assert json.loads(first.removeprefix(b"data: "))["choices"][0]["text"] == "Once"
            gate.set()
            rest = (await curl.stdout.read()).split(b"\n\n")
            assert await curl.wait() == 0
    assert json.loads(rest[0].removeprefix(b"data: "))["choices"][0]["text"] == " upon"
    assert rest[1:] == [b"data: [DONE]", b""]
