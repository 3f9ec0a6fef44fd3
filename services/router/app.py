"""The router's HTTP application: which path is served by what. It owns no tasks and no connections to anything."""

from __future__ import annotations

import time
from functools import partial

from aiohttp import web

from brigade.core.answer import Owner
from services.router.answering.delivery import AnsweringParts
from services.router.answering.endpoint import AnsweringEndpoint
from services.router.config import RouterConfig
from services.router.contracts import AdminSource, ServedModel
from services.router.metrics import RouterMetrics
from services.router.middleware import add_request_id_header, check_keys, observe_requests
from services.router.openai.chat_dialect import ChatDialect
from services.router.openai.chat_request import read_chat
from services.router.openai.completion_dialect import CompletionDialect
from services.router.openai.completion_request import read_completion
from services.router.openai.prompts import PromptMaker
from services.router.pages.admin import AdminPages
from services.router.pages.health import HealthPages
from services.router.pages.models import ModelPages
from services.router.pages.tokenizing import TokenizingPages
from services.router.text.tokenizer import ModelTokenizer


def build_app(
    *,
    owner: Owner,
    tokenizer: ModelTokenizer,
    model: ServedModel,
    config: RouterConfig,
    admin: AdminSource,
    metrics: RouterMetrics,
) -> web.Application:
    """Return the application. Serve it with `build_runner`, which sets what the application relies on."""
    parts = AnsweringParts(
        owner=owner, model=model, tokenizer=tokenizer, config=config, metrics=metrics, wall_s=time.time
    )
    prompts = PromptMaker(tokenizer=tokenizer, model=model, config=config)
    completions = AnsweringEndpoint(
        parts,
        dialect=CompletionDialect(),
        read_ask=partial(read_completion, model=model, config=config, prompts=prompts),
    )
    chat = AnsweringEndpoint(
        parts,
        dialect=ChatDialect(),
        read_ask=partial(read_chat, model=model, config=config, prompts=prompts, template=tokenizer.chat_template),
    )
    app = web.Application(
        middlewares=[observe_requests(metrics), check_keys(config)], client_max_size=config.max_body_bytes
    )
    app.on_response_prepare.append(add_request_id_header)
    app.add_routes(
        [
            web.post("/v1/completions", completions.handle),
            web.post("/v1/chat/completions", chat.handle),
            *ModelPages(model).routes(),
            *TokenizingPages(parts).routes(),
            *HealthPages(owner=owner, metrics=metrics).routes(),
            *AdminPages(admin, body_timeout_s=config.body_timeout_s).routes(),
        ]
    )
    return app


def build_runner(app: web.Application, config: RouterConfig, *, shutdown_timeout_s: float = 60.0) -> web.AppRunner:
    """Return the runner to set up and bind.

    A lost connection cancels its handler, which is how a client that leaves is noticed at once. On cleanup, answers
    under way have `shutdown_timeout_s` to end.
    """
    return web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=config.idle_timeout_s,
        max_line_size=config.max_header_bytes,
        max_field_size=config.max_header_bytes,
        max_headers=config.max_headers,
        shutdown_timeout=shutdown_timeout_s,
    )
