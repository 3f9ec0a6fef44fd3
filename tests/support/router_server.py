"""The router's HTTP surface on a free port, in the test's own event loop, with an owner that answers by itself."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.router.app import build_app, build_runner
from services.router.config import RouterConfig
from services.router.contracts import RoleRefused, UnknownWorker
from services.router.metrics import RouterMetrics
from services.router.model_folder import read_served_model
from services.router.text.tokenizer import ModelTokenizer
from support.router_echo_owner import EchoOwner, Script, echo_script
from support.router_tokenizers import DEMO_MODEL

TOKENIZER = ModelTokenizer.from_folder(DEMO_MODEL)


class OneWorkerAdmin:
    """An admin source of one worker, `w1`, and one request, `r/0`."""

    async def queues(self) -> Mapping[str, Any]:
        return {"queues": [], "num_waiting": 3}

    async def workers(self) -> Sequence[Mapping[str, Any]]:
        return [{"worker_id": "w1", "role": "prefill"}]

    async def request(self, request_id: str) -> Mapping[str, Any] | None:
        return {"id": request_id, "state": "DECODING"} if request_id == "r/0" else None

    async def set_role(self, worker_id: str, role: str) -> Mapping[str, Any]:
        if worker_id != "w1":
            raise UnknownWorker(f"worker {worker_id!r} is not registered")
        if role == "prefill":
            raise RoleRefused("a flip is in flight")
        return {"worker_id": worker_id, "desired_role": role}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A running server."""

    host: str
    port: int
    owner: EchoOwner

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def serve_router(
    script: Script = echo_script,
    *,
    pace: Callable[[], Awaitable[None]] | None = None,
    config: RouterConfig | None = None,
    send_buffer_bytes: int | None = None,
) -> AsyncIterator[Serving]:
    """Serve the demo model's name and tokenizer; `script` and `pace` say what is answered and how fast.

    `send_buffer_bytes` bounds what the kernel takes for a client that does not read (None: as much as it likes).
    """
    config = config or RouterConfig()
    model = read_served_model(DEMO_MODEL, name="demo")
    owner = EchoOwner(script, pace=pace)
    app = build_app(
        owner=owner,
        tokenizer=TOKENIZER,
        model=model,
        config=config,
        admin=OneWorkerAdmin(),
        metrics=RouterMetrics(CollectorRegistry(), model_name=model.name, now_s=time.perf_counter),
    )
    runner = build_runner(app, config, shutdown_timeout_s=0.1)
    await runner.setup()
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)  # inherited by connections
        await web.SockSite(runner, listener).start()
        yield Serving(host="127.0.0.1", port=runner.addresses[0][1], owner=owner)
    finally:
        await owner.close()
        await runner.cleanup()
