"""Keeps one worker registered: life after life under a new id, until the process is told to stop."""

from __future__ import annotations

import secrets

from brigade.bus.client import Bus
from brigade.core.config import InstallationConfig, TimingConfig, WorkerConfig
from brigade.runtime.service import Stop
from services.worker.life import Ending, Life
from services.worker.machine import Machine


class WorkerHost:
    """Runs `machine` as a worker. `life` is the present registration, for tests and health pages."""

    def __init__(
        self,
        bus: Bus,
        machine: Machine,
        *,
        installation: InstallationConfig,
        config: WorkerConfig,
        timing: TimingConfig,
        name: str,
    ) -> None:
        self._bus = bus
        self._machine = machine
        self._installation = installation
        self._config = config
        self._timing = timing
        self._name = name
        self.life: Life | None = None

    def ready(self) -> str | None:
        """Return None when the worker can do its work now, else one sentence saying why not."""
        if self.life is None or not self.life.is_registered:
            return "the worker is not registered"
        if not self._bus.is_settled(0.0):
            return "Redis does not answer"
        return None

    async def run(self, stop: Stop) -> None:
        """Work until `stop` drains, and return when everything is finished or given back."""
        role, epoch = self._config.role, 0
        try:
            while True:
                self.life = Life(
                    self._bus,
                    self._machine,
                    worker_id=new_worker_id(self._name),
                    role=role,
                    epoch=epoch,
                    installation=self._installation.name,
                    config=self._config,
                    timing=self._timing,
                )
                if await self.life.run(stop) is Ending.LEFT:
                    return
                role, epoch = self.life.roles.role, self.life.roles.epoch
        finally:
            self.life = None


def worker_name(config: WorkerConfig) -> str:
    """Return the configured name, or one drawn at random."""
    return config.worker_name or f"{config.role.value}-{secrets.token_hex(3)}"


def new_worker_id(name: str) -> str:
    """Return an id that was never used: two processes of one name are two workers (rule 5)."""
    return f"{name}.{secrets.token_hex(4)}"
