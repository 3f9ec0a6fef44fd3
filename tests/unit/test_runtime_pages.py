"""The pages of services without an HTTP surface, and the clock that tests move by hand."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter

from brigade.runtime.clock import ManualClock
from brigade.runtime.pages import add_pages, serve_pages


async def test_pages_tell_life_readiness_and_metrics() -> None:
    """/ready follows the service, /live does not."""
    reasons: list[str] = ["the model is loading"]
    registry = CollectorRegistry()
    Counter("steps", "steps", registry=registry).inc(3)
    app = web.Application()
    add_pages(app, ready=lambda: reasons[-1] if reasons else None, registry=registry)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/ready")
        assert response.status == 503
        assert (await response.json())["reason"] == "the model is loading"
        assert (await client.get("/live")).status == 200
        reasons.clear()
        assert (await client.get("/ready")).status == 200
        assert "steps_total 3.0" in await (await client.get("/metrics")).text()


async def test_port_zero_serves_nothing() -> None:
    """The pages are optional."""
    async with serve_pages("127.0.0.1", 0, ready=lambda: None, registry=CollectorRegistry()) as runner:
        assert runner is None


def test_manual_clock_moves_both_times() -> None:
    """A test that advances time sees deadlines and stamps move together."""
    clock = ManualClock(monotonic_s=1.0, wall_s=100.0)
    clock.advance(2.5)
    assert (clock.monotonic_s(), clock.wall_s()) == (3.5, 102.5)
