"""Fixtures for tests against a real Redis: one private server per test process, a fresh installation name per test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from support.bus_actors import BusActors
from support.key_leaks import leaked_keys
from support.redis_server import RedisServer

from brigade.bus.client import Bus


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server that all tests of this process share. A test that stops or pauses a server takes `own_redis_server`."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The shared server's URL; it is flushed when the test has ended."""
    yield redis_server.url
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()


@pytest.fixture
def no_key_leaks(redis_url: str) -> Iterator[None]:
    """Fails a test that leaves a key without TTL behind which no rule allows. Take it before the fixtures that make keys
    (`pytestmark = pytest.mark.usefixtures("no_key_leaks")`), so that it looks after they have ended."""
    yield
    with redis.Redis.from_url(redis_url) as client:
        leaks = leaked_keys(client)
    assert not leaks, "keys that would stay for ever:\n  " + "\n  ".join(leaks)


@pytest.fixture
def installation() -> str:
    """A name that no other test has."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
async def bus(redis_url: str, installation: str) -> AsyncIterator[Bus]:
    """An open bus on the shared server."""
    bus = Bus(redis_url, installation, block_ms=100)
    await bus.open()
    yield bus
    await bus.close()


@pytest.fixture
def new_redis_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Make servers of one's own (not started), with the keywords of `RedisServer`; they end with the test."""
    servers: list[RedisServer] = []

    def make(**options: object) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", **options))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def own_redis_server(new_redis_server: Callable[..., RedisServer]) -> RedisServer:
    """A running server that only this test uses, for outages."""
    server = new_redis_server()
    server.start()
    return server


@pytest.fixture
async def actors(no_key_leaks: None, bus: Bus) -> AsyncIterator[BusActors]:
    """Owners and workers to drive by hand. In the end every heartbeat ends and one sweep must leave nothing behind."""
    actors = BusActors(bus)
    yield actors
    await actors.wind_down()
