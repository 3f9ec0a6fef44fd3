"""Connections to one Redis, and the calls on it. Deadlines are ours, hidden retries are off, and every new connection asks
which server it reached: a new run id, or a missing installation key, means that Redis may have forgotten writes.

`incarnation` counts the servers seen. Whoever must act when Redis forgot (the owner of requests, a worker) remembers the
value it has acted upon and compares it before trusting the next answer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from brigade.bus.keys import PREFILL_GROUP, Keys
from brigade.core.errors import BusError, ConfigError

T = TypeVar("T")
Argument = bytes | str | int | float

_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.02, 0.5
_STALL_S = 1.0
"""An answer that is later than this beyond its own wait is a break: the heartbeats of others may have ended meanwhile."""
_NOT_NOW = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, TryAgainError, ClusterDownError, OSError)
"""No answer, or that of a server that is starting or failing over (LOADING is a connection error, MASTERDOWN one of
cluster down): the same to us. By class, since the client library takes the code off the message."""


class Bus:
    """One process's way to Redis. Safe for any number of tasks of one event loop; call `open` before use."""

    def __init__(self, url: str, installation: str, *, call_timeout_s: float = 5.0, block_ms: int = 1000) -> None:
        self.keys = Keys(installation)
        self.incarnation = 0
        self.settled_since_s = float("inf")
        """Monotonic time since when Redis has answered without a break; infinite while it does not."""
        self.block_ms = block_ms
        self._call_timeout_s = call_timeout_s
        self._run_id: str | None = None
        self._installation_id: bytes | None = None
        self._sources: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._redis = redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # a set one would turn a BLOCK as long as it into a hidden retry
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            redis_connect_func=self._on_connect,
            max_connections=1024,
        )

    async def open(self) -> None:
        """Connect, check the server's settings, make the installation's permanent keys. Raises BusError, ConfigError."""
        policy = await self.command("CONFIG", "GET", "maxmemory-policy", on_refusal=[b"", b"noeviction"])
        if policy and policy[-1] != b"noeviction":
            raise ConfigError(f"Redis evicts keys (maxmemory-policy {policy[-1].decode()}): set it to noeviction")
        await self.prepare()

    async def prepare(self) -> None:
        """Make the permanent keys; after a server that forgot they are made again."""
        await self.command("SET", self.keys.install, secrets.token_hex(8), "NX")
        self._installation_id = await self.command("GET", self.keys.install)
        for stream in self.keys.streams:
            await self.command(
                "XGROUP", "CREATE", self.keys.queue(stream), PREFILL_GROUP, "0", "MKSTREAM", busy_ok=True
            )

    async def close(self) -> None:
        await self._redis.aclose()

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        info = await connection.read_response()
        lines = (info.decode() if isinstance(info, bytes) else str(info)).splitlines()
        run_id = next((line.partition(":")[2].strip() for line in lines if line.startswith("run_id:")), None)
        if run_id is None:
            raise RedisConnectionError("the server does not tell its run id")
        if run_id != self._run_id:
            self._run_id = run_id
            self.incarnation += 1

    async def installation_is_known(self) -> bool:
        """Whether Redis still knows this installation. False counts a new incarnation: it was flushed behind our back.

        The value counts, not the presence: another process may have noticed first and made the key again.
        """
        found = await self.command("GET", self.keys.install)
        if found is not None and found == self._installation_id:
            return True
        self.incarnation += 1
        await self.prepare()
        return False

    def is_settled(self, for_s: float) -> bool:
        """Whether Redis has answered this process for `for_s` seconds without a break (rule: outage of all heartbeats)."""
        return time.monotonic() - self.settled_since_s >= for_s

    # -- calls -----------------------------------------------------------------------------------------------------------

    async def run(self, script: str, *args: Argument, timeout_s: float | None = None) -> Any:
        """Run one of our scripts; sent again while Redis does not answer, up to the deadline. Raises BusError."""
        if script not in self._sources:
            folder = resources.files("brigade.bus") / "lua"
            self._sources[script] = (folder / "common.lua").read_text() + (folder / f"{script}.lua").read_text()

        async def call() -> Any:
            digest = self._digests.get(script)
            if digest is not None:
                try:
                    return await self._exchange("EVALSHA", digest, 1, self.keys.prefix, *args)
                except NoScriptError:
                    pass
            loaded = await self._redis.execute_command("SCRIPT LOAD", self._sources[script])
            self._digests[script] = loaded.decode() if isinstance(loaded, bytes) else loaded
            return await self._exchange("EVALSHA", self._digests[script], 1, self.keys.prefix, *args)

        return await self._until_answered(call, f"script {script}", timeout_s)

    async def command(
        self, *args: Argument, busy_ok: bool = False, on_refusal: Any = None, timeout_s: float | None = None
    ) -> Any:
        """Run one idempotent command; sent again while Redis does not answer. `busy_ok` takes BUSYGROUP for a yes;
        `on_refusal` is the answer when the server forbids the command (managed servers have no CONFIG)."""

        async def call() -> Any:
            try:
                return await self._redis.execute_command(*args)
            except ResponseError as e:
                if busy_ok and str(e).startswith("BUSYGROUP"):
                    return None
                if on_refusal is not None and (isinstance(e, NoPermissionError) or "unknown command" in str(e)):
                    return on_refusal
                raise

        return await self._until_answered(call, str(args[0]), timeout_s)

    async def once(self, *args: Argument, timeout_s: float) -> Any:
        """Run one command without sending it again; the answer is Redis's own. Raises BusError when none comes in time."""
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._exchange(*args)
        except _NOT_NOW as e:  # OSError: also the deadline's TimeoutError
            self._lost()
            raise BusError(f"{args[0]!s}: Redis does not answer: {e}") from e
        except RedisError as e:
            raise BusError(f"{args[0]!s}: {e}") from e
        self._answered(sent_s + max(0.0, timeout_s - self._call_timeout_s))
        return answer

    async def read(
        self, key: str, cursor: str, *, count: int, block_ms: int | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Read entries of one stream after `cursor`, waiting up to `block_ms` (default: the bus's). Raises BusError."""
        block_ms = self.block_ms if block_ms is None else block_ms
        answer = await self.once(
            "XREAD",
            "COUNT",
            count,
            "BLOCK",
            block_ms,
            "STREAMS",
            key,
            cursor,
            timeout_s=block_ms / 1000 + self._call_timeout_s,
        )
        return _entries_of(answer)

    async def read_group(
        self, key: str, group: str, consumer: str, *, count: int, new: bool, block_ms: int | None = None
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Read new entries of a group (`new`), or this consumer's pending ones. Raises BusError."""
        block_ms = self.block_ms if block_ms is None else block_ms
        wait: tuple[Argument, ...] = ("BLOCK", block_ms) if new else ()
        answer = await self.once(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, *wait, "STREAMS", key, ">" if new else "0",
            timeout_s=block_ms / 1000 + self._call_timeout_s,
        )  # fmt: skip
        return _entries_of(answer)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run read-only commands in one round trip. Raises BusError."""

        async def call() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = await pipe.execute()
                return answers

        return await self._until_answered(call, "pipeline", None)

    async def _exchange(self, *args: Argument) -> Any:
        """Send one command on a connection of the pool and return the plain answer. For calls that come with every step:
        the client's own way around it (retries, telemetry, other shapes of the answers) costs as much as the call."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_command(*args)
            return await connection.read_response()
        finally:  # whatever fails in either, a cancellation too, has closed the connection
            await pool.release(connection)

    async def _until_answered(self, call: Callable[[], Awaitable[T]], what: str, timeout_s: float | None) -> T:
        deadline_s = self._call_timeout_s if timeout_s is None else timeout_s
        backoff_s = _BACKOFF_FIRST_S
        last: Exception | None = None
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    sent_s = time.monotonic()
                    try:
                        answer = await call()
                    except _NOT_NOW as e:
                        last = e
                    except RedisError as e:
                        raise BusError(f"{what}: {e}") from e
                    else:
                        self._answered(sent_s)
                        return answer
                    self._lost()
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
        except TimeoutError:
            self._lost()
            raise BusError(f"{what}: Redis did not answer within {deadline_s:g} s ({last or 'no reply'})") from last

    def _answered(self, expected_s: float) -> None:
        now_s = time.monotonic()
        if self.settled_since_s == float("inf") or now_s - expected_s > _STALL_S:
            self.settled_since_s = now_s

    def _lost(self) -> None:
        self.settled_since_s = float("inf")


def _entries_of(answer: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Flatten the plain answer of XREAD or XREADGROUP to (entry id, fields). A deleted pending entry has no fields."""
    entries = [entry for _, found in answer or () for entry in found]
    return [(entry_id.decode(), _pairs(fields or ())) for entry_id, fields in entries]


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def entries_in(entries: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return the entries of one stream, as the client gives them from `Bus.command`, as (entry id, fields)."""
    return [(entry_id.decode(), dict(fields or {})) for entry_id, fields in entries]
