"""Several emulated workers in one process: `python -m services.worker.emulated --workers prefill-0,decode-0 --emulate PROFILE`.

Each is a whole worker with its own id, lease, pool and threads; they share an interpreter and an event loop, so that a cluster
of sixteen fits on a laptop. When one of them fails, the process ends and all of them start again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from brigade.core.config import NAME_PATTERN, InstallationConfig, TimingConfig, WorkerConfig, setting
from brigade.core.errors import ConfigError
from brigade.core.messages import Role
from brigade.runtime.lag import watch_lag
from brigade.runtime.service import Stop, run_service
from brigade.runtime.service_args import parse_service_args
from services.worker.main import run_worker


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedHostConfig:
    """The workers of this process."""

    section: ClassVar[str] = "emulated_host"

    workers: str = setting("names of the workers, with commas; each begins with its role: prefill-0,decode-0")

    def __post_init__(self) -> None:
        for name in self.workers.split(","):
            known = name.partition("-")[0] in tuple(Role)
            if not known or NAME_PATTERN.fullmatch(name) is None:
                raise ConfigError(f"workers: {name!r} must be a role, a hyphen and a number, such as prefill-0")

    @property
    def roles(self) -> dict[str, Role]:
        """The role of each worker by its name."""
        return {name: Role(name.partition("-")[0]) for name in self.workers.split(",")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workers until told to stop. Returns the exit status."""
    installation, timing, config, host = parse_service_args(
        "services.worker.emulated", InstallationConfig, TimingConfig, WorkerConfig, EmulatedHostConfig, argv=argv
    )
    if config.emulate is None:
        print("services.worker.emulated: --emulate is required", file=sys.stderr)
        return 2

    async def serve(stop: Stop) -> None:
        with watch_lag() as lag:
            async with asyncio.TaskGroup() as tasks:
                for name, role in host.roles.items():
                    own = replace(config, worker_name=name, role=role, health_port=0)
                    tasks.create_task(run_worker(stop, installation=installation, timing=timing, config=own, lag=lag))

    return run_service("emulated", serve, installation=installation, timing=timing)


if __name__ == "__main__":
    sys.exit(main())
