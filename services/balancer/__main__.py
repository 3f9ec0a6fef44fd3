"""`python -m services.balancer`: one balancer process."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from brigade.bus.client import Bus
from brigade.core.config import BalancerConfig, InstallationConfig, TimingConfig
from brigade.runtime.pages import serve_pages
from brigade.runtime.service import Stop, run_service
from brigade.runtime.service_args import parse_service_args
from services.balancer.loop import Balancer, BalancerMetrics


def main() -> int:
    installation, timing, config = parse_service_args(
        "services.balancer", InstallationConfig, TimingConfig, BalancerConfig
    )
    return run_service(
        "balancer", lambda stop: serve(stop, installation, timing, config), installation=installation, timing=timing
    )


async def serve(stop: Stop, installation: InstallationConfig, timing: TimingConfig, config: BalancerConfig) -> None:
    """Run the control loop until told to stop."""
    registry = CollectorRegistry()
    bus = Bus(installation.redis_url, installation.name, block_ms=timing.block_ms)
    try:
        await bus.open()
        balancer = Balancer(bus, config, timing, BalancerMetrics(registry))

        def ready() -> str | None:
            return None if bus.is_settled(0.0) else "Redis does not answer"

        async with serve_pages(config.health_host, config.health_port, ready=ready, registry=registry):
            await balancer.run(stop.draining)
    finally:
        await bus.close()


if __name__ == "__main__":
    sys.exit(main())
