"""What whole and streamed answers have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from brigade.core.answer import Owner
from services.router.answering.branches import Collector
from services.router.config import RouterConfig
from services.router.contracts import ServedModel
from services.router.metrics import RouterMetrics
from services.router.openai.reply import Dialect, ReplyHead
from services.router.text.tokenizer import ModelTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringParts:
    """What answers are made with. `wall_s` returns the seconds since the epoch."""

    owner: Owner
    model: ServedModel
    tokenizer: ModelTokenizer
    config: RouterConfig
    metrics: RouterMetrics
    wall_s: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply in the making: its dialect, what stands in all its objects, and its headers."""

    head: ReplyHead
    dialect: Dialect
    headers: Mapping[str, str]


class Delivery(Collector, Protocol):
    """Collects an answer and brings it to the client."""

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        """Send the answer. Raises the branch's error when nothing has been sent yet."""
