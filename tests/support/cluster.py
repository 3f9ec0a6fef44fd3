"""A whole installation as real processes, to be used over HTTP, and hurt."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from brigade.kv.arena import sweep
from support.redis_server import RedisServer, free_port
from support.waiting import wait_until

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0

TIMING_FLAGS = (
    *("--heartbeat-interval-s", "0.2", "--heartbeat-ttl-s", "1.0", "--gap-timeout-s", "1.0"),
    *("--max-attempts", "20", "--block-ms", "200", "--record-ttl-s", "60"),
)

_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the test
if os.getppid() != int(sys.argv[1]):
    sys.exit("the test process has gone")
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""


@dataclass(slots=True)
class Answer:
    """What a client saw of one request."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    status: int = 200


class Cluster:
    """Router, workers, balancer and Redis of one installation. Use as an async context manager."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        roles: Sequence[str],
        *,
        worker_flags: Sequence[str] = ("--dtype", "float32", "--num-blocks", "512"),
        balancers: int = 1,
        append_only: bool = True,
    ) -> None:
        self.name = f"e2e-{secrets.token_hex(4)}"
        self.redis = RedisServer(folder / "redis", append_only=append_only, append_fsync="everysec")
        self.port = free_port()
        self._folder = folder
        self._model = model
        self._roles = tuple(roles)
        self._worker_flags = tuple(worker_flags)
        self._num_balancers = balancers
        self._num_started = 0
        self._killed: set[str] = set()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._http: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    async def __aenter__(self) -> Cluster:
        self.redis.start()
        self.start("router", "services.router", "--model", str(self._model), "--port", str(self.port))
        for index in range(self._num_balancers):
            self.start(f"balancer{index}", "services.balancer")
        for role in self._roles:
            self.start_worker(role)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=60))
        await self.wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()
        codes = await asyncio.to_thread(self._stop_all)
        self.redis.kill()
        if error is None:
            wrong = {name: code for name, code in codes.items() if code != 0}
            assert not wrong, f"processes that did not drain: {wrong}\n{self.logs()}"
            left = [path.name for path in Path("/dev/shm").glob(f"brigade-{self.name}-*")]
            unexplained = [name for name in left if not any(f"-{killed}." in name for killed in self._killed)]
            assert not unexplained, f"shared-memory files left behind: {unexplained}"
            sweep("/dev/shm", self.name)  # as `brigade up` does: what killed workers could not remove themselves
            assert not list(Path("/dev/shm").glob(f"brigade-{self.name}-*"))
        else:
            print(self.logs())

    # -- processes -------------------------------------------------------------------------------------------------------

    def start(self, name: str, module: str, *flags: str) -> None:
        """Start one process; its output goes to a log file."""
        shared = ("--name", self.name, "--redis-url", self.redis.url, *TIMING_FLAGS)
        command = [sys.executable, "-c", _LAUNCHER, str(os.getpid()), module, *flags, *shared]
        with (self._folder / f"{name}.log").open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def start_worker(self, role: str) -> str:
        """Start a worker in a role and return its configured name."""
        name = f"{role}{self._num_started}"
        self._num_started += 1
        module = {"prefill": "services.prefill", "decode": "services.decode"}.get(role, "services.worker")
        extra = ("--role", "mixed") if role == "mixed" else ()
        self.start(name, module, "--model", str(self._model), "--worker-name", name, *extra, *self._worker_flags)
        return name

    def kill(self, name: str) -> None:
        """kill -9, and forget the process."""
        process = self.processes.pop(name)
        self._killed.add(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    @property
    def _worker_names(self) -> list[str]:
        return [name for role in ("prefill", "decode", "mixed") for name in self.names(role)]

    def log_of(self, name: str) -> str:
        """Return what a process has printed so far."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.processes if name.startswith(prefix)]

    def logs(self, last_lines: int = 40) -> str:
        """Return the ends of all log files."""
        parts = []
        for path in sorted(self._folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-last_lines:]
            parts.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(parts)

    def _stop_all(self) -> dict[str, int]:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(timeout=STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes

    async def wait_ready(self) -> None:
        """Return when the router serves and every worker process is registered and alive."""

        async def ready() -> bool:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended with {process.returncode}\n{self.logs()}"
            try:
                async with self.http.get(f"{self.url}/health") as health:
                    if health.status != 200:
                        return False
                live = [w["worker_id"].rpartition(".")[0] for w in await self.live_workers()]
                return all(name in live for name in self._worker_names)
            except aiohttp.ClientError:
                return False

        try:
            await wait_until(ready, START_DEADLINE_S, "the installation's readiness")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.logs()}") from None

    # -- clients ---------------------------------------------------------------------------------------------------------

    async def live_workers(self) -> list[dict[str, Any]]:
        async with self.http.get(f"{self.url}/admin/workers") as response:
            return [w for w in orjson.loads(await response.read())["workers"] if w["alive"]]

    async def set_role(self, worker_id: str, role: str) -> None:
        """Ask for a role as an operator does, and return when the worker serves in it."""
        url = f"{self.url}/admin/workers/{worker_id}/role"
        async with self.http.post(url, json={"role": role}) as response:
            assert response.status == 202, await response.text()

        async def serves() -> bool:
            found = [w for w in await self.live_workers() if w["worker_id"] == worker_id]
            return bool(found) and found[0]["role"] == role and found[0]["accepting"]

        await wait_until(serves, 30, f"that {worker_id} serves as {role}")

    async def stream(self, prompt: Sequence[int] | str, **body: Any) -> AsyncIterator[dict[str, Any]]:
        """Stream one completion's events; an HTTP error comes as one event with its status."""
        asked = {"model": self._model.name, "prompt": prompt, "stream": True, "return_token_ids": True} | body
        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/v1/completions"
        async with self.http.post(url, data=orjson.dumps(asked), headers=headers) as response:
            if response.status != 200:
                yield {"status": response.status, **orjson.loads(await response.read())}
                return
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    yield orjson.loads(line[6:])

    async def complete(self, prompt: Sequence[int] | str, **body: Any) -> Answer:
        """Run one streamed completion to its end (greedy unless the body says otherwise)."""
        answer = Answer()
        async for event in self.stream(prompt, **({"temperature": 0} | body)):
            if "error" in event:
                answer.error = event["error"]
                answer.status = event.get("status", 200)
                return answer
            for choice in event["choices"]:
                answer.token_ids += choice.get("token_ids") or []
                answer.text += choice.get("text") or ""
                answer.finish_reason = choice["finish_reason"] or answer.finish_reason
        return answer
