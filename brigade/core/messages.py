"""Everything that crosses a process border through the bus. Encoded field by field in `brigade.bus.codec`.

KV travels by handle, token ids as packed int32, times as wall-clock seconds since the epoch. A local table, hint or
release about a running request is always keyed by (request id, attempt): one worker may hold two attempts of one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from brigade.core.kv import KVHandle
from brigade.core.step import Sampled

SCHEMA_VERSION = 1

AttemptKey = tuple[str, int]
"""(request id, attempt)."""


class Role(StrEnum):
    """What a worker does. A label under an epoch: weights, pool and prefix cache stay when it changes."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"

    @property
    def prefills(self) -> bool:
        return self is not Role.DECODE

    @property
    def decodes(self) -> bool:
        return self is not Role.PREFILL


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillJob:
    """Header of a waiting prefill: what a policy must see to choose. The prompt itself is in the request's record.

    `num_prefix_tokens` are accepted output tokens of earlier attempts, prefilled after the prompt.
    """

    request_id: str
    attempt: int
    priority_class: str
    priority: int
    num_prompt_tokens: int
    num_prefix_tokens: int
    max_tokens: int
    arrival_s: float

    @property
    def key(self) -> AttemptKey:
        return (self.request_id, self.attempt)

    @property
    def num_prefill_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_prefix_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """A request whose KV is ready for decoding: everything up to, not including, the last of `output_token_ids`.

    `output_token_ids` are all tokens of the answer so far (accepted prefix and the first token of this attempt).
    `handle` names the KV; its worker is the one that prefilled. `epoch` is the target's epoch the job was made for.
    """

    request_id: str
    attempt: int
    epoch: int
    output_token_ids: tuple[int, ...]
    handle: KVHandle

    @property
    def key(self) -> AttemptKey:
        return (self.request_id, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensPart:
    """New tokens of one request in a frame; a frame is one stream entry with the parts of all requests of one router.

    `offset` is the first token's place in the answer. `finish_reason` marks the answer's last part.
    """

    request_id: str
    attempt: int
    offset: int
    tokens: tuple[Sampled, ...]
    finish_reason: str | None = None
    num_cached_tokens: int = 0

    @property
    def key(self) -> AttemptKey:
        return (self.request_id, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullFailed:
    """The KV behind a handle has gone, or a worker lost the request: its owner starts the next attempt."""

    request_id: str
    attempt: int
    reason: str

    @property
    def key(self) -> AttemptKey:
        return (self.request_id, self.attempt)


FramePart = TokensPart | PullFailed


class ControlKind(StrEnum):
    """Hints only: the record is the truth, and a lost hint costs at most one heartbeat."""

    DROP = "drop"
    """The attempt has ended or moved on: stop working on it."""
    RELEASE = "release"
    """The reader has copied: the loan may end."""
    ROLE = "role"
    """A desired role was written: look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMessage:
    kind: ControlKind
    request_id: str = ""
    attempt: int = 0

    @property
    def key(self) -> AttemptKey:
        return (self.request_id, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What a worker tells of itself with each heartbeat. Role, epoch and accepting are not here: only scripts write them.

    Blocks: `num_free_blocks` counts evictable cached ones too; `num_lent_blocks` wait for their reader;
    `num_reserved_blocks` are promised to admitted requests and not yet used. Token counts are of requests held now.

    `emulates` is the profile that an emulated worker pretends to be, at `time_scale` times its durations; `median_step_s` is
    the wall time that its last steps should take. `total_lag_s` sums how late the process's event loop was in
    `num_lag_looks` looks since its start.
    """

    worker_id: str
    host: str
    pid: int
    model: str
    model_revision: str
    num_blocks: int
    block_size_tokens: int
    num_free_blocks: int = 0
    num_lent_blocks: int = 0
    num_reserved_blocks: int = 0
    num_prefilling: int = 0
    num_prefill_tokens: int = 0
    num_waiting_decode: int = 0
    num_decoding: int = 0
    max_num_seqs: int = 0
    max_model_len_tokens: int = 0
    started_s: float = 0.0
    sent_s: float = 0.0
    emulates: str = ""
    time_scale: float = 1.0
    median_step_s: float = 0.0
    num_lag_looks: int = 0
    total_lag_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A registered worker as the registry shows it. `status` is None when its heartbeat has gone."""

    worker_id: str
    role: Role | None = None
    epoch: int = 0
    accepting: bool = False
    desired_role: Role | None = None
    desired_epoch: int = 0
    status: WorkerStatus | None = None

    @property
    def is_alive(self) -> bool:
        return self.status is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A queue entry as a worker's window shows it."""

    stream: str
    entry_id: str
    job: PrefillJob


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleIntent:
    """An operator's wish that a worker takes a role; the leading balancer carries it out."""

    worker_id: str
    role: Role
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A poison entry or a request that outlived its attempts, kept for inspection."""

    source: str
    reason: str
    data: bytes = b""
    fields: Sequence[tuple[str, str]] = field(default=())
