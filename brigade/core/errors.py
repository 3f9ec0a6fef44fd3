"""The tree of errors. Each class says whether trying again can help; the edge translates it once.

BrigadeError
├── ConfigError            a setting is wrong; the program stops with this sentence
├── StartError             a process that we started did not come up; the supervisor gives up with this sentence
├── ModelError             a model folder cannot be served: missing, unsupported, wrong dtype, differs from its reference
├── InvalidRequest         the client's request is wrong (HTTP 400); names the field
├── Overloaded             no room now (HTTP 429); retry
├── Unavailable            no worker, or the bus is away (HTTP 503); retry
├── DecodeError            bytes from the bus are not one of our messages; goes to the dead-letter stream
├── BusError               Redis did not answer, or refused us; retry
├── OutOfBlocks            the ledger has no room for what was asked; a caller that asked first never sees it
└── KVGone                 a KV handle no longer names the blocks it was made for; the owner starts a new attempt
"""

from __future__ import annotations


class BrigadeError(Exception):
    """Root of every error that this project raises on purpose."""

    retryable = False


class ConfigError(BrigadeError):
    """A setting is unknown, malformed or contradicts another."""


class StartError(BrigadeError):
    """A process that we started did not come up; the message is one sentence for the operator."""


class ModelError(BrigadeError):
    """A model folder cannot be served; the message is one sentence for the operator."""


class InvalidRequest(BrigadeError):
    """The client's request is wrong. `field` is the JSON field to name, `code` OpenAI's machine-readable code."""

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.status = status


class Overloaded(BrigadeError):
    """There is no room for this request now."""

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(BrigadeError):
    """Nothing can serve this request now: no worker lives, or the bus is away."""

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DecodeError(BrigadeError):
    """Bytes from the bus are not a message that this version understands. Keeps the bytes for the dead-letter stream."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class BusError(BrigadeError):
    """Redis did not answer in time, or answered with an error that is not ours."""

    retryable = True


class OutOfBlocks(BrigadeError):
    """The ledger has fewer free blocks than were asked for."""


class KVGone(BrigadeError):
    """The blocks behind a KV handle were re-used, or their pool has gone."""

    retryable = True
