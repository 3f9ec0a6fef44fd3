"""What `brigade up` will start, worked out and checked before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import brigade
from brigade.core.config import (
    BalancerConfig,
    InstallationConfig,
    RouterServiceConfig,
    TimingConfig,
    UpConfig,
    WorkerConfig,
)
from brigade.core.errors import ConfigError
from brigade.core.messages import Role
from brigade.core.settings import Sources, env_of, flag_of, settings_of
from brigade.engine.emulated_folder import emulated_model_info
from brigade.engine.folder import open_folder
from brigade.policies.profile import load_profile
from brigade.runtime.child import ChildSpec

_SHARED = (InstallationConfig, TimingConfig)
_MODULES = {Role.PREFILL: "services.prefill", Role.DECODE: "services.decode", Role.MIXED: "services.worker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked installation. `redis_url` None means that we start a Redis of our own."""

    sources: Sources
    up: UpConfig
    installation: InstallationConfig
    timing: TimingConfig
    router: RouterServiceConfig
    worker: WorkerConfig
    redis_url: str | None

    @property
    def threads_per_worker(self) -> int:
        """CPU threads of each worker: as asked, else the cores divided among the workers."""
        return self.up.threads_per_worker or max(1, len(os.sched_getaffinity(0)) // self.up.num_workers)

    @property
    def workers(self) -> tuple[tuple[str, Role], ...]:
        """Name and role of each worker."""
        counts = {
            Role.PREFILL: self.up.num_prefill,
            Role.DECODE: self.up.num_decode,
            Role.MIXED: self.up.num_mixed,
        }
        return tuple((f"{role.value}-{index}", role) for role, count in counts.items() for index in range(count))

    @property
    def emulated_hosts(self) -> dict[str, tuple[str, ...]]:
        """Processes of emulated workers: their names and their workers', dealt out so that each has its share of each role."""
        names = [name for name, _ in self.workers]
        num_spare_cores = max(1, len(os.sched_getaffinity(0)) - 1)
        per_process = self.up.workers_per_process or -(-len(names) // num_spare_cores)
        num_hosts = -(-len(names) // per_process)
        return {f"emulated-{index}": tuple(names[index::num_hosts]) for index in range(num_hosts)}

    @property
    def drain_phases(self) -> tuple[tuple[str, ...], ...]:
        """The router finishes its requests while the workers still serve it; then the workers leave."""
        processes = [name for name, _ in self.workers] if self.worker.emulate is None else self.emulated_hosts
        return ("router",), (*processes, "balancer")

    def services(self, redis_url: str) -> Iterator[ChildSpec]:
        """Yield all service processes of the installation, on the Redis at `redis_url`."""
        one_thread = {"OMP_NUM_THREADS": "1"}
        yield self._service("router", "services.router", (RouterServiceConfig,), redis_url, {}, one_thread)
        yield from self._workers(redis_url) if self.worker.emulate is None else self._emulated_workers(redis_url)
        own = {"health_port": "0"}
        yield self._service("balancer", "services.balancer", (BalancerConfig,), redis_url, own, one_thread)

    def _emulated_workers(self, redis_url: str) -> Iterator[ChildSpec]:
        for name, workers in self.emulated_hosts.items():
            own = {"health_port": "0", "num_threads": "1"}
            spec = self._service(
                name, "services.worker.emulated", (WorkerConfig,), redis_url, own, {"OMP_NUM_THREADS": "1"}
            )
            yield replace(spec, argv=(*spec.argv, "--workers", ",".join(workers)))

    def _workers(self, redis_url: str) -> Iterator[ChildSpec]:
        for name, role in self.workers:
            threads = str(self.threads_per_worker)
            own = {"worker_name": name, "num_threads": threads, "health_port": "0"}
            if role is Role.MIXED:
                own["role"] = role.value
            yield self._service(name, _MODULES[role], (WorkerConfig,), redis_url, own, {"OMP_NUM_THREADS": threads})

    def _service(
        self,
        name: str,
        module: str,
        parts: Sequence[type],
        redis_url: str,
        own: Mapping[str, str],
        env: Mapping[str, str],
    ) -> ChildSpec:
        """Return the command of one service: the flags we were given that it knows, then its own. Secrets go by env."""
        argv = [sys.executable, "-P", "-m", module]
        if self.sources.file is not None:
            argv += ["--config", self.sources.file.path]
        secrets: dict[str, str] = {}
        given = {**self.sources.flags, "redis_url": redis_url, **own}
        for setting in (setting for part in (*_SHARED, *parts) for setting in settings_of(part)):
            if setting.name in given and not setting.repr:
                secrets[env_of(setting.name)] = given[setting.name]
            elif setting.name in given:
                argv += [flag_of(setting.name), given[setting.name]]
        return ChildSpec(name=name, argv=tuple(argv), env={**self.sources.env, **env, **secrets})


def make_plan(sources: Sources) -> Plan:
    """Work out the plan and check what can be checked without starting anything. Raises ConfigError, ModelError."""
    up = sources.load(UpConfig)
    sources = sources.with_flags(model=_model_of(sources))
    if not sources.gives(InstallationConfig, "log_level"):
        sources = sources.with_flags(log_level="info" if up.verbose else "warning")
    installation = sources.load(InstallationConfig)
    plan = Plan(
        sources=sources,
        up=up,
        installation=installation,
        timing=sources.load(TimingConfig),
        router=sources.load(RouterServiceConfig),
        worker=sources.load(WorkerConfig),
        redis_url=installation.redis_url if sources.gives(InstallationConfig, "redis_url") else None,
    )
    sources.load(BalancerConfig)
    if plan.router.port == 0:
        raise ConfigError("--port: brigade up needs a port above 0, for clients to know it")
    if plan.worker.emulate is None:
        open_folder(plan.worker.model)
    else:
        emulated_model_info(plan.worker.model, load_profile(plan.worker.emulate).name)
    return plan


def _model_of(sources: Sources) -> str:
    """Return the model that is asked for; router and workers must serve the same. Else the bundled one."""
    asked: list[str] = []
    if sources.gives(WorkerConfig, "model"):
        asked.append(sources.load(WorkerConfig).model)
    if sources.gives(RouterServiceConfig, "model"):
        asked.append(sources.load(RouterServiceConfig).model)
    if len(set(asked)) > 1:
        raise ConfigError(f"[worker] and [router] name two models: {' and '.join(asked)}")
    name = "emulated" if sources.gives(WorkerConfig, "emulate") else "demo"
    return asked[0] if asked else str(bundled_model(name))


def bundled_model(name: str) -> Path:
    """Return the folder of a bundled model: in the source tree, or where the package was installed."""
    in_source = Path(brigade.__file__).parent.parent / "models" / name
    installed = Path(sys.prefix) / "share" / "brigade" / "models" / name
    for folder in (in_source, installed):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the bundled {name} model is not installed; give --model a model folder")
