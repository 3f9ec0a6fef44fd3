# ruff: noqa: RUF009 - setting() is dataclasses.field with the help text
"""Every setting of every part: one frozen dataclass per part, each default written once, each value checked.

How a value gets here (file < environment < flag) is settings.py's business. Parts are complete and valid once made, so
nothing that takes one checks it again. `section` is the part's table in a configuration file.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar, Literal

from brigade.core.errors import ConfigError
from brigade.core.messages import Role

Dtype = Literal["auto", "float32", "bfloat16"]
LogLevel = Literal["debug", "info", "warning", "error"]

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Installation and worker names: they become parts of Redis keys and of file names."""


def setting(help: str, default: Any = MISSING, *, env: str | None = None, secret: bool = False) -> Any:
    """Declare one setting. Without a default it is required; `env` is one more variable that sets it, read last."""
    metadata = {"help": help, "env": env}
    return field(default=default, metadata=metadata, repr=not secret)


def _check(part: object, ok: bool, name: str, rule: str) -> None:
    """Raise the ConfigError of a field that breaks its rule."""
    if not ok:
        raise ConfigError(f"{name} {rule}, not {getattr(part, name)!r}")


def _check_positive(part: object, *names: str) -> None:
    for name in names:
        _check(part, getattr(part, name) > 0, name, "must be above zero")


def _check_port(part: object, name: str) -> None:
    _check(part, 0 <= getattr(part, name) <= 65535, name, "must be a port number, 0 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationConfig:
    """What all processes of one installation share. The name separates its keys and files from other installations'."""

    section: ClassVar[str] = "installation"

    name: str = setting("name of the installation: prefix of its Redis keys and shared-memory files", "default")
    redis_url: str = setting("URL of the Redis server", "redis://127.0.0.1:6379/0", env="REDIS_URL")
    log_level: LogLevel = setting("least severe level that is logged", "info")

    def __post_init__(self) -> None:
        rule = "must be 1 to 64 letters, digits, '.', '_' or '-'"
        _check(self, NAME_PATTERN.fullmatch(self.name) is not None, "name", rule)
        schemes = ("redis://", "rediss://", "unix://")
        _check(self, self.redis_url.startswith(schemes), "redis_url", f"must start with one of {', '.join(schemes)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """The clocks of the protocol. All processes of one installation must agree on them."""

    section: ClassVar[str] = "timing"

    heartbeat_interval_s: float = setting("time between two heartbeats", 0.5)
    heartbeat_ttl_s: float = setting("age at which a heartbeat no longer counts", 3.0)
    gap_timeout_s: float = setting("wait for a missing token frame before the owner starts a new attempt", 2.0)
    record_ttl_s: int = setting("how long the record of a finished request is kept", 300)
    max_attempts: int = setting("attempts of one request before it fails", 5)
    drain_deadline_s: float = setting("longest drain after the first SIGTERM; then work is cancelled", 30.0)
    block_ms: int = setting("longest blocking read from Redis", 1000)

    def __post_init__(self) -> None:
        _check_positive(self, "heartbeat_interval_s", "heartbeat_ttl_s", "gap_timeout_s", "record_ttl_s")
        _check_positive(self, "max_attempts", "drain_deadline_s", "block_ms")
        two_beats = self.heartbeat_ttl_s >= 2 * self.heartbeat_interval_s
        _check(self, two_beats, "heartbeat_ttl_s", "must be at least twice heartbeat_interval_s")
        _check(self, self.block_ms <= 1000, "block_ms", "must be at most 1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One worker process: its model, its KV pool and the bounds of a step."""

    section: ClassVar[str] = "worker"

    model: str = setting("local Hugging Face model folder")
    dtype: Dtype = setting("type of weights, activations and KV; auto is what the model's config.json says", "auto")
    device: str = setting("auto, cpu, cuda or cuda:N", "auto")
    emulate: str | None = setting(
        "profile to pretend to be, such as h100/llama-3.1-8b/tp1; no weights are loaded", None
    )
    time_scale: float = setting("an emulated step lasts so many times as long as its profile says", 1.0)
    role: Role = setting("role at start; the balancer may change it", Role.MIXED)
    worker_name: str | None = setting("stable name of this worker; drawn at random when not given", None)
    block_size_tokens: int = setting("token slots of one KV block", 16)
    num_blocks: int = setting("KV blocks of the pool; 0 derives them from --kv-memory-mb", 0)
    kv_memory_mb: int = setting("memory for the KV pool in MiB, when num_blocks is 0", 512)
    kv_dir: str = setting("tmpfs folder of the KV pools, shared by all workers of the host", "/dev/shm")
    num_threads: int = setting("CPU threads of the engine", 1)
    max_batch_tokens: int = setting("most tokens in one prefill step", 2048)
    max_num_seqs: int = setting("most requests in one decode step", 64)
    linear: str = setting("plug-in that multiplies by weights", "auto")
    attention: str = setting("plug-in that computes attention", "auto")
    health_host: str = setting("address of /live, /ready and /metrics", "127.0.0.1")
    health_port: int = setting("port of /live, /ready and /metrics; 0 serves none", 0)

    def __post_init__(self) -> None:
        _check(self, bool(self.model), "model", "must be a model folder")
        known_device = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device) is not None
        _check(self, known_device, "device", "must be auto, cpu, cuda or cuda:N")
        if self.worker_name is not None:
            rule = "must be 1 to 64 letters, digits, '.', '_' or '-'"
            _check(self, NAME_PATTERN.fullmatch(self.worker_name) is not None, "worker_name", rule)
        _check_positive(self, "block_size_tokens", "kv_memory_mb", "num_threads", "max_batch_tokens", "max_num_seqs")
        _check(self, self.num_blocks >= 0, "num_blocks", "must not be negative")
        _check_positive(self, "time_scale")
        if self.emulate is None:
            _check(self, self.time_scale == 1, "time_scale", "must be 1 without --emulate")
        _check_port(self, "health_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterServiceConfig:
    """The router process: which model it speaks for, where it listens and who may ask."""

    section: ClassVar[str] = "router"

    model: str = setting("local Hugging Face model folder: its tokenizer, chat template and limits")
    host: str = setting("address to listen on", "127.0.0.1")
    port: int = setting("port to listen on", 8000)
    served_model_name: str | None = setting("name of the model in the API; the folder's name when not given", None)
    api_key: str | None = setting(
        "key that clients of /v1 must present; none is asked for when not given", None, secret=True
    )
    admin_key: str | None = setting("key that clients of /admin must present", None, secret=True)

    def __post_init__(self) -> None:
        _check(self, bool(self.model), "model", "must be a model folder")
        _check_port(self, "port")
        for name in ("served_model_name", "api_key", "admin_key"):
            if getattr(self, name) == "":
                raise ConfigError(f"{name} must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerConfig:
    """The control loop."""

    section: ClassVar[str] = "balancer"

    tick_s: float = setting("time between two looks at the installation", 0.5)
    lease_ttl_s: float = setting("life of the leader's lease", 3.0)
    health_host: str = setting("address of /live, /ready and /metrics", "127.0.0.1")
    health_port: int = setting("port of /live, /ready and /metrics; 0 serves none", 0)

    def __post_init__(self) -> None:
        _check_positive(self, "tick_s", "lease_ttl_s")
        _check(self, self.lease_ttl_s >= 2 * self.tick_s, "lease_ttl_s", "must be at least twice tick_s")
        _check_port(self, "health_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpConfig:
    """What `brigade up` starts on this host."""

    section: ClassVar[str] = "up"

    prefill: int | None = setting("prefill workers; 1 when not given, 0 beside --mixed", None)
    decode: int | None = setting("decode workers; 1 when not given, 0 beside --mixed", None)
    mixed: int = setting("workers that do both", 0)
    threads_per_worker: int = setting("CPU threads of each worker; 0 divides the cores among them", 0)
    workers_per_process: int = setting("emulated workers in one process; 0 leaves one core to router and Redis", 0)
    verbose: bool = setting("show what the services log at level info", False)

    def __post_init__(self) -> None:
        for name in ("prefill", "decode", "mixed", "threads_per_worker", "workers_per_process"):
            count = getattr(self, name)
            _check(self, count is None or count >= 0, name, "must not be negative")
        if self.num_mixed == 0 and (self.num_prefill == 0 or self.num_decode == 0):
            raise ConfigError("prefill and decode need at least one worker each, or one mixed worker")

    @property
    def num_prefill(self) -> int:
        return self.prefill if self.prefill is not None else int(self.mixed == 0)

    @property
    def num_decode(self) -> int:
        return self.decode if self.decode is not None else int(self.mixed == 0)

    @property
    def num_mixed(self) -> int:
        return self.mixed

    @property
    def num_workers(self) -> int:
        return self.num_prefill + self.num_decode + self.num_mixed


PARTS: tuple[type, ...] = (
    InstallationConfig,
    TimingConfig,
    WorkerConfig,
    RouterServiceConfig,
    BalancerConfig,
    UpConfig,
)
"""All parts. A configuration file and an environment are shared by all services, so each knows the others' names."""
