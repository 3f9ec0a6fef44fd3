"""What the HTTP surface needs from the rest of the router: the model it speaks for, and a source of admin views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from brigade.core.errors import BrigadeError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """Sampling values for requests that name none: the model folder's generation_config.json over the usual ones."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def unlimited() -> int | None:
    """Say that no pool bounds a request."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """The model that clients may name. `root` is its folder.

    `max_model_len_tokens` bounds prompt and answer together. `pool_limit_tokens` returns the same bound as the live
    workers' pools give it now, or None while none is known.
    """

    name: str
    root: str
    max_model_len_tokens: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    pool_limit_tokens: Callable[[], int | None] = unlimited
    created_s: int = 0


class UnknownWorker(BrigadeError):
    """The admin named a worker that is not registered (HTTP 404)."""


class RoleRefused(BrigadeError):
    """The role cannot be set now, e.g. a flip is in flight or the pool would be empty (HTTP 409)."""


class AdminSource(Protocol):
    """Views for /admin, read from Redis, and the one wish that an admin can utter. Answers are ready for JSON.

    Any method may raise Unavailable or BusError when the bus is away.
    """

    async def queues(self) -> Mapping[str, Any]:
        """Return requests, tokens and head age per class and band."""

    async def workers(self) -> Sequence[Mapping[str, Any]]:
        """Return the registered workers."""

    async def request(self, request_id: str) -> Mapping[str, Any] | None:
        """Return state and timeline of one request, or None where nothing is known of it."""

    async def set_role(self, worker_id: str, role: str) -> Mapping[str, Any]:
        """Wish a role for a worker. Raises InvalidRequest, UnknownWorker or RoleRefused."""
