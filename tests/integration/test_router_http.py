"""The router's HTTP surface over real sockets: errors, keys, limits, and clients that leave or do not read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from support.router_echo_owner import EchoOwner, wait_after
from support.router_server import TOKENIZER, Serving, serve_router
from support.waiting import wait_until

from brigade.core.errors import BrigadeError, Unavailable
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled
from services.router.config import RouterConfig

ASK = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 4}


@asynccontextmanager
async def client_of(serving: Serving) -> AsyncIterator[ClientSession]:
    async with ClientSession(base_url=serving.url) as client:
        yield client


async def error_of(response: ClientResponse) -> dict[str, Any]:
    body = await response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return dict(body["error"])


async def events_of(response: ClientResponse) -> list[Any]:
    """Return the stream's events in order; [DONE] as its text."""
    lines = (await response.text()).split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line if line == "[DONE]" else json.loads(line) for line in (line[6:] for line in lines)]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"", {}, 400, "invalid_json"),
        (b'{"prompt": "\xff"}', {}, 400, "invalid_json"),
        (b'{"prompt": "a", "temperature": NaN}', {}, 400, "invalid_json"),
        (b'{"prompt": "a", "temperature": 1e999}', {}, 400, "invalid_json"),
        (b'{"prompt": "\\ud800"}', {}, 400, "invalid_json"),
        (b"[" * 5000, {}, 400, "invalid_json"),
        (b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b'{"prompt": "' + b"a" * 70_000 + b'"}', {}, 413, "body_too_large"),
        (b'{"prompt": "a", "model": "other"}', {}, 404, "model_not_found"),
        (b'{"prompt": "a", "n": 0}', {}, 400, "invalid_value"),
    ],
)
async def test_bad_bodies_get_an_openai_error_and_queue_nothing(
    body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serve_router(config=RouterConfig(max_body_bytes=65536)) as serving, client_of(serving) as client:
        headers = {"Content-Type": "application/json"} | headers
        async with client.post("/v1/completions", data=body, headers=headers) as response:
            assert response.status == status
            assert (await error_of(response))["code"] == code
        assert serving.owner.submitted == []


async def test_unknown_paths_and_wrong_methods_are_openai_errors_too() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.get("/v1/nothing") as response:
            assert (response.status, (await error_of(response))["code"]) == (404, "not_found")
        async with client.get("/v1/completions") as response:
            assert (response.status, (await error_of(response))["code"]) == (405, "method_not_allowed")


async def test_a_usable_request_id_comes_back_and_others_are_replaced() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        for stream in (True, False):
            headers = {"X-Request-Id": "abc-1"}
            async with client.post("/v1/completions", json=ASK | {"stream": stream}, headers=headers) as response:
                assert response.headers["X-Request-Id"] == "abc-1"
                await response.read()
        first, second = (spec.request_id for spec in serving.owner.submitted)
        assert first != second, "the same client id twice must not be the same request"
        assert "abc-1" in first
        async with client.get("/live", headers={"X-Request-Id": "a{b} c"}) as response:
            assert len(response.headers["X-Request-Id"]) == 32


async def test_a_stream_of_two_branches_and_their_usage() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        ask = ASK | {"n": 2, "stream": True, "seed": 5, "stream_options": {"include_usage": True}}
        async with client.post("/v1/completions", json=ask) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            *chunks, usage, done = await events_of(response)
        assert done == "[DONE]"
        num_prompt = len(TOKENIZER.encode_now(ASK["prompt"], add_special_tokens=True))
        assert usage["choices"] == []
        assert usage["usage"]["prompt_tokens"] == num_prompt
        assert usage["usage"]["completion_tokens"] == 8
        assert all(chunk["usage"] is None for chunk in chunks)
        for index in (0, 1):
            choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
            assert "".join(choice["text"] for choice in choices) == ASK["prompt"]
            assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
        assert [spec.sampling.seed for spec in serving.owner.submitted] == [5, 6]


async def test_usage_in_every_chunk_counts_up() -> None:
    """Load generators ask for this to count tokens that arrive together."""
    async with serve_router() as serving, client_of(serving) as client:
        options = {"include_usage": True, "continuous_usage_stats": True}
        async with client.post("/v1/completions", json=ASK | {"stream": True, "stream_options": options}) as response:
            *chunks, _ = await events_of(response)
        assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 4, 4]


async def test_token_ids_are_returned_where_asked_for() -> None:
    ids = TOKENIZER.encode_now(ASK["prompt"], add_special_tokens=True)
    async with serve_router() as serving, client_of(serving) as client:
        async with client.post("/v1/completions", json=ASK | {"return_token_ids": True}) as response:
            choice = (await response.json())["choices"][0]
            assert (choice["prompt_token_ids"], choice["token_ids"]) == (ids, ids[:4])
        ask = ASK | {"return_token_ids": True, "stream": True}
        async with client.post("/v1/completions", json=ask) as response:
            *chunks, _ = await events_of(response)
            assert chunks[0]["choices"][0]["prompt_token_ids"] == ids
            assert not any("prompt_token_ids" in chunk["choices"][0] for chunk in chunks[1:])
            assert [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]] == ids[:4]


async def test_an_echo_begins_with_the_prompt() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        for stream in (False, True):
            ask = ASK | {"prompt": ["a b", "c"], "echo": True, "max_tokens": 1, "stream": stream}
            async with client.post("/v1/completions", json=ask) as response:
                replies = (await events_of(response))[:-1] if stream else [await response.json()]
            choices = [choice for reply in replies for choice in reply["choices"]]
            assert [choice["text"][:3] for choice in sorted(choices, key=lambda c: c["index"])] == ["a b", "cc"]


def failing_script(num_tokens: int) -> Any:
    def script(spec: RequestSpec) -> Iterator[Sampled | BrigadeError]:
        for _ in range(num_tokens):
            yield Sampled(token_id=spec.prompt_token_ids[0])
        yield Unavailable("all workers have gone", retry_after_s=2.5)

    return script


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_token_has_its_own_status(stream: bool) -> None:
    async with serve_router(failing_script(0)) as serving, client_of(serving) as client:
        async with client.post("/v1/completions", json=ASK | {"stream": stream}) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "3"
            assert (await error_of(response))["code"] == "unavailable"


async def test_an_error_after_the_first_token_is_an_event_and_no_done_follows() -> None:
    """A stream that just ended would look like a complete answer."""
    gate = asyncio.Event()
    async with (
        serve_router(failing_script(2), pace=wait_after(2, gate)) as serving,
        client_of(serving) as client,
    ):
        async with client.post("/v1/completions", json=ASK | {"stream": True, "n": 2}) as response:
            assert response.status == 200  # the head and the first events are out
            gate.set()
            *chunks, last = await events_of(response)
        assert last["error"]["message"] == "all workers have gone"
        assert len(chunks) >= 2
        assert all("choices" in chunk for chunk in chunks)


async def test_a_router_that_cannot_serve_says_so_everywhere() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        serving.owner.why_not_ready = "no worker lives"
        for path in ("/health", "/ready"):
            async with client.get(path) as response:
                assert response.status == 503
                assert "Retry-After" in response.headers
                assert (await error_of(response))["message"] == "no worker lives"
        async with client.post("/v1/completions", json=ASK) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
        for path in ("/live", "/ping", "/version", "/v1/models"):
            async with client.get(path) as response:
                assert response.status == 200
        serving.owner.why_not_ready = None
        async with client.get("/health") as response:
            assert response.status == 200


async def test_a_full_router_answers_429_with_retry_after() -> None:
    gate = asyncio.Event()
    config = RouterConfig(max_unfinished=1)
    async with serve_router(pace=wait_after(0, gate), config=config) as serving, client_of(serving) as client:
        first = asyncio.create_task(client.post("/v1/completions", json=ASK))
        await wait_until(lambda: serving.owner.num_unfinished == 1)
        async with client.post("/v1/completions", json=ASK) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert (await error_of(response))["code"] == "overloaded"
        gate.set()
        assert (await first).status == 200


KEYED = RouterConfig(api_key="k\u00e4y", admin_key="boss")


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/models", None, 401),
        ("/v1/models", "wrong", 401),
        ("/v1/models", "boss", 401),
        ("/v1/models", "k\u00e4y", 200),
        ("/admin/workers", None, 401),
        ("/admin/workers", "k\u00e4y", 401),
        ("/admin/workers", "boss", 200),
        ("/health", None, 200),
        ("/metrics", None, 200),
    ],
)
async def test_each_key_opens_its_own_doors(path: str, key: str | None, status: int) -> None:
    async with serve_router(config=KEYED) as serving, client_of(serving) as client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with client.get(path, headers=headers) as response:
            assert response.status == status
            if status == 401:
                assert (await error_of(response))["code"] == "invalid_api_key"


async def test_the_admin_pages() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.get("/admin/queues") as response:
            assert (await response.json())["num_waiting"] == 3
        async with client.get("/admin/workers") as response:
            assert (await response.json())["workers"][0]["worker_id"] == "w1"
        async with client.get("/admin/requests/r/0") as response:
            assert (await response.json())["state"] == "DECODING"
        async with client.get("/admin/requests/nobody") as response:
            assert response.status == 404
        for worker, body, status in [
            ("w1", {"role": "decode"}, 202),
            ("w1", {"role": "prefill"}, 409),
            ("w2", {"role": "decode"}, 404),
            ("w1", {}, 400),
            ("w1", {"role": 5}, 400),
            ("w1", {"role": "decode", "force": True}, 400),
        ]:
            async with client.post(f"/admin/workers/{worker}/role", json=body) as response:
                assert response.status == status, body


async def test_models_are_listed_with_their_folder() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.get("/v1/models") as response:
            [card] = (await response.json())["data"]
        assert (card["id"], card["max_model_len"]) == ("demo", 2048)
        assert card["root"].endswith("models/demo")
        async with client.get("/v1/models/other") as response:
            assert (response.status, (await error_of(response))["code"]) == (404, "model_not_found")


async def test_text_and_conversations_are_tokenised_as_the_model_reads_them() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.post("/tokenize", json={"prompt": "Once upon"}) as response:
            body = await response.json()
            assert body["tokens"] == TOKENIZER.encode_now("Once upon", add_special_tokens=True)
            assert body["count"] == len(body["tokens"])
        async with client.post("/tokenize", json={"messages": [{"role": "user", "content": "hi"}]}) as response:
            tokens = (await response.json())["tokens"]
        async with client.post("/detokenize", json={"tokens": tokens}) as response:
            assert "user\nhi" in (await response.json())["prompt"]
        async with client.post("/detokenize", json={"tokens": [99999]}) as response:
            assert response.status == 400


async def test_the_page_of_metrics_counts_what_clients_saw() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.post("/v1/completions", json=ASK | {"n": 2}) as response:
            await response.read()
        async with client.get("/metrics") as response:
            page = await response.text()
    num_prompt = len(TOKENIZER.encode_now(ASK["prompt"], add_special_tokens=True))
    for line in (
        f'vllm:prompt_tokens_total{{model_name="demo"}} {num_prompt:.1f}',
        'vllm:generation_tokens_total{model_name="demo"} 8.0',
        'vllm:time_to_first_token_seconds_count{model_name="demo"} 2.0',
        'vllm:inter_token_latency_seconds_count{model_name="demo"} 6.0',
        'vllm:e2e_request_latency_seconds_count{model_name="demo"} 2.0',
        'vllm:request_success_total{finished_reason="length",model_name="demo"} 2.0',
        'vllm:num_requests_running{model_name="demo"} 0.0',
        'brigade:http_requests_total{route="/v1/completions",status="200"} 1.0',
    ):
        assert line in page.splitlines(), line


async def send(
    serving: Serving, body: dict[str, Any], *, receive_buffer_bytes: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a completion ask on a connection of one's own, which reads ahead by 2 KiB at most."""
    connection = socket.socket()
    if receive_buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (serving.host, serving.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    writer.write(head.encode() + b"\r\n\r\n" + data)
    return reader, writer


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_the_queue_is_noticed_at_once(stream: bool) -> None:
    """Nothing is written to a queued client, so only its connection can tell."""
    async with serve_router(pace=wait_after(0, asyncio.Event())) as serving:
        _, writer = await send(serving, ASK | {"stream": stream, "n": 2})
        await wait_until(lambda: serving.owner.num_unfinished == 2)
        writer.close()
        await wait_until(lambda: len(serving.owner.cancelled) == 2, deadline_s=1)
        assert sorted(serving.owner.cancelled) == sorted(spec.request_id for spec in serving.owner.submitted)


async def test_a_client_that_leaves_a_running_stream_is_noticed_at_once() -> None:
    async with serve_router(pace=ticking()) as serving:
        reader, writer = await send(serving, ASK | {"stream": True, "max_tokens": 2000})
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        await wait_until(lambda: len(serving.owner.cancelled) == 1, deadline_s=1)
        async with client_of(serving) as client, client.get("/metrics") as response:
            assert 'finished_reason="abort",model_name="demo"} 1.0' in await response.text()


def ticking() -> Any:
    async def pace() -> None:
        await asyncio.sleep(0.001)

    return pace


async def test_an_answer_that_ended_is_not_cancelled() -> None:
    async with serve_router() as serving, client_of(serving) as client:
        async with client.post("/v1/completions", json=ASK | {"stop": "upon"}) as response:
            body = await response.json()
        assert (body["choices"][0]["finish_reason"], body["choices"][0]["stop_reason"]) == ("stop", "upon")
        assert (serving.owner.cancelled, serving.owner.num_unfinished) == ([], 0)


async def test_a_failed_branch_cancels_the_others() -> None:
    def script(spec: RequestSpec) -> Iterator[Sampled | BrigadeError]:
        if spec.request_id.endswith("/1"):
            yield Unavailable("gone", retry_after_s=1)
        for _ in range(spec.stop.max_tokens):
            yield Sampled(token_id=5)

    async with serve_router(script, pace=ticking()) as serving, client_of(serving) as client:
        async with client.post("/v1/completions", json=ASK | {"n": 3, "max_tokens": 1000}) as response:
            assert response.status == 503
        assert len(serving.owner.cancelled) == 2


def logprob_script(spec: RequestSpec) -> Iterator[Sampled]:
    top = tuple((token_id, -1.0) for token_id in range(3, 23))
    for _ in range(spec.stop.max_tokens):
        yield Sampled(token_id=5, logprob=-1.0, top=top)


@pytest.mark.parametrize(
    "config",
    [
        RouterConfig(max_client_buffer_bytes=100_000, slow_client_timeout_s=60),
        RouterConfig(max_client_buffer_bytes=10**9, slow_client_timeout_s=0.2),
    ],
    ids=["too much unread", "too long unread"],
)
async def test_a_client_that_does_not_read_is_cut_and_its_work_ends(config: RouterConfig) -> None:
    """Bounded in bytes and in time: neither memory nor a worker waits for a client that sleeps."""
    async with serve_router(logprob_script, config=config) as serving:
        ask = ASK | {"stream": True, "max_tokens": 2000, "logprobs": 20, "n": 16}
        _, writer = await send(serving, ask)
        try:
            await wait_until(lambda: len(serving.owner.cancelled) > 0 and serving.owner.num_unfinished == 0, 20)
            async with client_of(serving) as client, client.get("/metrics") as response:
                assert "brigade:clients_cut_total 1.0" in await response.text()
        finally:
            writer.transport.abort()


async def test_a_client_that_does_not_send_its_body_is_answered_408() -> None:
    async with serve_router(config=RouterConfig(body_timeout_s=0.1)) as serving:
        reader, writer = await asyncio.open_connection(serving.host, serving.port)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /live HTTP/1.1\r\nHost: x\r\n"])
async def test_idle_connections_and_unfinished_heads_are_closed(sent: bytes) -> None:
    async with serve_router(config=RouterConfig(idle_timeout_s=0.2)) as serving:
        reader, writer = await asyncio.open_connection(serving.host, serving.port)
        writer.write(sent)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_fast_client_reads_everything_while_a_slow_one_sleeps() -> None:
    """Each client has a buffer of its own; the slow one delays nobody."""
    config = RouterConfig(max_client_buffer_bytes=10**9, slow_client_timeout_s=60)
    async with serve_router(logprob_script, config=config) as serving:
        _, writer = await send(serving, ASK | {"stream": True, "max_tokens": 2000, "logprobs": 20, "n": 4})
        await wait_until(lambda: serving.owner.num_unfinished > 0)
        async with client_of(serving) as client, client.post("/v1/completions", json=ASK) as response:
            assert len((await response.json())["choices"][0]["text"]) > 0
        writer.transport.abort()
        owner: EchoOwner = serving.owner
        await wait_until(lambda: owner.num_unfinished == 0, 20)


@pytest.mark.parametrize(("stream", "max_tokens"), [(True, 40), (True, 1500), (False, 100), (False, 1500)])
async def test_an_answer_that_nobody_takes_keeps_no_connection_open(stream: bool, max_tokens: int) -> None:
    """The answer is complete and its work is over, yet a client that never reads must not hold memory and a socket.

    The short answers fit into asyncio's own buffer, where nothing would wait for it to leave.
    """
    config = RouterConfig(max_client_buffer_bytes=10**9, slow_client_timeout_s=0.3)
    async with serve_router(logprob_script, config=config, send_buffer_bytes=4096) as serving:
        ask = ASK | {"stream": stream, "max_tokens": max_tokens, "logprobs": 20, "n": 2}
        _, writer = await send(serving, ask, receive_buffer_bytes=4096)
        try:
            async with client_of(serving) as client:

                async def is_cut() -> bool:
                    async with client.get("/metrics") as response:
                        return "brigade:clients_cut_total 1.0" in await response.text()

                await wait_until(is_cut, 20)
            assert serving.owner.num_unfinished == 0
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    "headers", [b"X: " + b"a" * 20_000 + b"\r\n", b"".join(b"X%d: 1\r\n" % number for number in range(200))]
)
async def test_heads_beyond_the_limits_are_refused(headers: bytes) -> None:
    async with serve_router() as serving:
        reader, writer = await asyncio.open_connection(serving.host, serving.port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        async with asyncio.timeout(5):
            assert b" 400 " in await reader.readline()
        writer.close()
