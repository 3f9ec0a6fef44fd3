"""`brigade up`: a whole installation on this host, from one command, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from brigade.bus.client import Bus
from brigade.commands.up_plan import Plan, make_plan
from brigade.commands.up_ready import greeting, wait_until_ready
from brigade.core.config import (
    BalancerConfig,
    InstallationConfig,
    RouterServiceConfig,
    TimingConfig,
    UpConfig,
    WorkerConfig,
)
from brigade.core.errors import BusError, ConfigError
from brigade.core.settings import Sources, add_flags, make_parser
from brigade.kv.arena import sweep
from brigade.runtime.redis_server import find_redis_server, free_port, redis_folder, redis_server_spec
from brigade.runtime.service import CANCEL_GRACE_S, Stop, run_service
from brigade.runtime.supervisor import Supervisor

REDIS_START_S = 10.0
REDIS_CHECK_S = 3.0

_PARTS = (UpConfig, InstallationConfig, TimingConfig, RouterServiceConfig, WorkerConfig, BalancerConfig)
_NOT_OURS = ("role", "worker_name", "num_threads", "health_host", "health_port")
"""Settings that differ from child to child, so they are no flags of `brigade up`."""


def parser() -> argparse.ArgumentParser:
    """Return the command line of `brigade up`: every setting of every service that is not one child's own."""
    made = make_parser("brigade up", "Start router, workers and balancer on this host; Ctrl-C drains and stops them.")
    add_flags(made, _PARTS, fixed=_NOT_OURS)
    return made


def run(argv: Sequence[str]) -> int:
    """Start everything, wait for a signal, drain. Raises ConfigError before anything is started."""
    plan = make_plan(Sources.of(_PARTS, args=parser().parse_args(argv), env=os.environ))
    check_port(plan.router.host, plan.router.port)
    if not os.path.isdir(plan.worker.kv_dir):
        raise ConfigError(f"--kv-dir: {plan.worker.kv_dir} is not a folder")
    if plan.redis_url is None:
        find_redis_server()  # says so before anything starts when there is none
    # two drain phases and the last moments of a child that was cancelled
    whole_drain_s = 2 * (plan.timing.drain_deadline_s + 2 * CANCEL_GRACE_S)
    return run_service(
        "brigade up",
        lambda stop: _run(stop, plan),
        installation=plan.installation,
        timing=replace(plan.timing, drain_deadline_s=whole_drain_s),
    )


async def _run(stop: Stop, plan: Plan) -> None:
    """Hold the installation up until `stop.draining`; whatever happens, leave no process, folder or KV pool behind."""
    supervisor = Supervisor(say=_say, show=_show_from(plan))
    sweep(plan.worker.kv_dir, plan.installation.name)
    with redis_folder() as folder:
        try:
            async with asyncio.TaskGroup() as tasks:
                start = tasks.create_task(_start(tasks, supervisor, plan, folder))
                await stop.draining.wait()
                print("\nbrigade: draining", file=sys.stderr)
                start.cancel()
                limit_s = plan.timing.drain_deadline_s + CANCEL_GRACE_S
                killed = await supervisor.end(plan.drain_phases, limit_s=limit_s)
                if killed:
                    _say(f"killed after {limit_s:g} s: {', '.join(killed)}")
        finally:
            await supervisor.kill_all()
            sweep(plan.worker.kv_dir, plan.installation.name)
    print("brigade: stopped", file=sys.stderr)


async def _start(tasks: asyncio.TaskGroup, supervisor: Supervisor, plan: Plan, folder: Path) -> None:
    """Start Redis if it is ours, then all services at once; print the greeting when the router is ready."""
    redis_url = plan.redis_url
    if redis_url is None:
        port = free_port()
        redis_url = f"redis://127.0.0.1:{port}/0"
        spec = redis_server_spec(find_redis_server(), port=port, folder=folder)
        tasks.create_task(supervisor.keep(spec))
        await check_redis(redis_url, plan.installation.name, timeout_s=REDIS_START_S)
    else:
        await check_redis(redis_url, plan.installation.name, timeout_s=REDIS_CHECK_S)
    for service in plan.services(redis_url):
        tasks.create_task(supervisor.keep(service))
    await wait_until_ready(plan.router, say=_say)
    supervisor.is_ready = True
    print(greeting(plan), flush=True)


async def check_redis(url: str, name: str, *, timeout_s: float) -> None:
    """Raise ConfigError unless a Redis that never evicts answers at `url`."""
    try:
        bus = Bus(url, name, call_timeout_s=timeout_s)
    except ValueError as error:
        raise ConfigError(f"redis_url {url}: {error}") from error
    try:
        await bus.open()
    except BusError as error:
        raise ConfigError(f"no Redis at {url}: {error}") from error
    finally:
        await bus.close()


def check_port(host: str, port: int) -> None:
    """Raise ConfigError when the router could not listen on host:port."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from None


def _say(sentence: str) -> None:
    print(f"brigade: {sentence}", file=sys.stderr, flush=True)


def _show_from(plan: Plan) -> Callable[[str, str], None]:
    """Return what prints a child's output line under its name. Redis tells of itself only when asked."""

    def show(name: str, line: str) -> None:
        if name != "redis" or plan.up.verbose:
            print(f"{name} | {line}", file=sys.stderr, flush=True)

    return show
