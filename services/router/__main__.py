"""`python -m services.router`: one router process."""

from __future__ import annotations

import sys

from brigade.core.config import InstallationConfig, RouterServiceConfig, TimingConfig
from brigade.runtime.service import run_service
from brigade.runtime.service_args import parse_service_args
from services.router.service import serve


def main() -> int:
    installation, timing, config = parse_service_args(
        "services.router", InstallationConfig, TimingConfig, RouterServiceConfig
    )
    return run_service(
        "router", lambda stop: serve(stop, installation, timing, config), installation=installation, timing=timing
    )


if __name__ == "__main__":
    sys.exit(main())
