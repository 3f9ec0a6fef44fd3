"""An installation for measurements: Redis, router, balancer and workers as processes, with their CPU seconds."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import orjson

from benchmarks.measures import ROOT
from benchmarks.timed_engine import StepNote, load_notes
from brigade.kv.arena import DEFAULT_DIRECTORY, sweep
from brigade.runtime.redis_server import find_redis_server, free_port, redis_server_spec

START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine the workers run. `kind`: plain (services.worker itself), real or emulated (both timed)."""

    kind: str = "plain"
    step_ms: float = 0.0
    num_threads: int = 1
    num_blocks: int = 4096
    dtype: str = "auto"


class Installation:
    """Processes of one installation in `folder`. Use as a context manager; on leaving everything is drained."""

    def __init__(self, folder: Path, model: Path, roles: Sequence[str], engine: EngineChoice) -> None:
        self.name = f"bench-{secrets.token_hex(3)}"
        self.port = free_port()
        self.model_name = model.resolve().name
        self._folder = folder
        self._model = model
        self._roles = roles
        self._engine = engine
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Installation:
        try:
            redis_port = free_port()
            spec = redis_server_spec(find_redis_server(), port=redis_port, folder=self._folder)
            self._start("redis", spec.argv, spec.env)
            shared = ["--name", self.name, "--redis-url", f"redis://127.0.0.1:{redis_port}/0"]
            shared += ["--log-level", "warning"]
            model = ["--model", str(self._model)]
            self._start_python("router", ["services.router", *model, "--port", str(self.port), *shared], {})
            self._start_python("balancer", ["services.balancer", *shared], {})
            for index, role in enumerate(self._roles):
                self._start_worker(f"{role}-{index}", role, [*model, *shared])
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def cpu_s(self) -> dict[str, float]:
        """User and system seconds of each process so far (a tick is 10 ms)."""
        return {name: process_cpu_s(process.pid) for name, process in self._processes.items()}

    async def watch(self) -> None:
        """Run until cancelled; raise as soon as a process has ended, which clients would wait for in vain."""
        while True:
            self._check()
            await asyncio.sleep(0.5)

    def notes(self) -> dict[str, list[StepNote]]:
        """The steps of each timed worker. Ends the installation: the notes are written by draining workers."""
        self._stop()
        return {path.stem: load_notes(path) for path in self._folder.glob("*.notes")}

    def _start_worker(self, name: str, role: str, flags: list[str]) -> None:
        engine = self._engine
        module = "services.worker" if engine.kind == "plain" else "benchmarks.timed_worker"
        flags = [*flags, "--role", role, "--worker-name", name, "--num-blocks", str(engine.num_blocks)]
        flags += ["--num-threads", str(engine.num_threads), "--dtype", engine.dtype]
        env = {"BENCH_ENGINE": engine.kind, "BENCH_STEP_MS": str(engine.step_ms)}
        env |= {"BENCH_NOTES": str(self._folder / f"{name}.notes"), "OMP_NUM_THREADS": str(engine.num_threads)}
        self._start_python(name, [module, *flags], env)

    def _start_python(self, name: str, arguments: list[str], env: Mapping[str, str]) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BRIGADE_")}
        full = {**inherited, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **env}
        self._start(name, [sys.executable, "-m", *arguments], full)

    def _start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(argv, cwd=ROOT, env=dict(env), stdout=log, stderr=log)

    def _wait_ready(self) -> None:
        """Wait until the router serves and all workers are alive."""
        deadline_s = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline_s:
            self._check()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/admin/workers", timeout=5) as answer:
                    alive = [worker for worker in orjson.loads(answer.read())["workers"] if worker["alive"]]
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    if len(alive) == len(self._roles):
                        return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass  # not yet; the deadline ends it
            time.sleep(0.1)
        raise RuntimeError("the installation did not become ready:\n" + "\n".join(map(self._log_of, self._processes)))

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{self._log_of(name)}")

    def _log_of(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def _stop(self) -> None:
        """Router first, then workers and balancer, Redis last; whoever does not drain in time is killed."""
        names = list(self._processes)
        for phase in (["router"], [name for name in names if name not in ("router", "redis")], ["redis"]):
            processes = [self._processes[name] for name in phase if name in self._processes]
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(timeout=STOP_DEADLINE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes = {}
        sweep(DEFAULT_DIRECTORY, self.name)


def process_cpu_s(pid: int) -> float:
    """User and system seconds of a running process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
