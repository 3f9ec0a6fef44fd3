"""Settings of the router's HTTP surface. Defaults are written here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from brigade.core.errors import ConfigError
from brigade.core.request import DEFAULT_CLASS, PRIORITY_CLASSES


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """What one router accepts and how long it waits for its clients.

    `api_key` guards /v1, /tokenize and /detokenize, `admin_key` guards /admin (where it is None, `api_key` does);
    None leaves them open. `max_prompt_tokens` None means the model's context. `max_unfinished` bounds the branches that
    this router owns at one time. A client whose unread answer exceeds `max_client_buffer_bytes`, or that reads nothing
    for `slow_client_timeout_s`, is cut. `idle_timeout_s` ends connections between requests (and those that never send
    a whole head), `body_timeout_s` those that do not send their body. Prompts above `encode_inline_chars` characters
    are tokenised on a thread.
    """

    api_key: str | None = None
    admin_key: str | None = None
    served_model_name: str | None = None
    default_class: str = DEFAULT_CLASS
    max_body_bytes: int = 8 * 2**20
    max_header_bytes: int = 16 * 2**10
    max_headers: int = 100
    max_prompt_tokens: int | None = None
    max_prompts: int = 64
    max_n: int = 32
    max_branches: int = 256
    max_stops: int = 16
    max_stop_chars: int = 1000
    max_messages: int = 4096
    max_logprobs: int = 20
    max_unfinished: int = 4096
    max_client_buffer_bytes: int = 2**20
    slow_client_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 30.0
    encode_inline_chars: int = 2000

    def __post_init__(self) -> None:
        if self.default_class not in PRIORITY_CLASSES:
            raise ConfigError(f"default_class {self.default_class!r} is not one of {', '.join(PRIORITY_CLASSES)}")
        for name in ("api_key", "admin_key"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name} is empty; leave it out to serve without one")
        for name in ("max_body_bytes", "max_n", "max_branches", "max_unfinished", "max_client_buffer_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in ("slow_client_timeout_s", "idle_timeout_s", "body_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0")
