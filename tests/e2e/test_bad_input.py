"""What bad input gets from real processes: one clear sentence and an exit status, or a refusal, and the rest goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import redis
from support.cluster import Cluster
from support.greedy import assert_greedy
from support.key_leaks import leaked_keys
from support.redis_server import RedisServer, free_port
from support.waiting import wait_until

from brigade.bus.keys import Keys
from brigade.core.request import BAND_EDGES_TOKENS
from brigade.engine.random_models import make_random_model
from brigade.runtime.service_args import EXIT_UNAVAILABLE, EXIT_WRONG_SETTING

START_DEADLINE_S = 60
NUM_BLOCKS = 16
POOL_TOKENS = 16 * NUM_BLOCKS  # less than the model's context of 512


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model("llama", tmp_path_factory.mktemp("models") / "llama-tiny")


@pytest.fixture
def listening_port() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def start(redis_server: RedisServer, installation: str) -> Callable[..., tuple[int, str]]:
    """Run a service that is expected not to start; returns its exit status and what it says, logs apart."""

    def run(module: str, *flags: str, redis_url: str | None = None) -> tuple[int, str]:
        url = redis_url or redis_server.url
        command = [sys.executable, "-m", f"services.{module}", "--name", installation, "--redis-url", url, *flags]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert not ended.stdout
        said = [line for line in ended.stderr.splitlines() if not is_log_line(line)]
        assert len(said) == 1, f"not one sentence:\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        assert not list(Path("/dev/shm").glob(f"brigade-{installation}-*")), "a pool is left behind"
        return ended.returncode, said[0]

    return run


def is_log_line(line: str) -> bool:
    """Whether a line is one of the log (JSON) without a failure in it."""
    return line.startswith("{") and json.loads(line)["level"] in ("debug", "info")


def rewrite_config(folder: Path, **fields: object) -> None:
    """Replace the whole configuration of a model folder."""
    (folder / "config.json").write_text(json.dumps(fields))


Start = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("module", ["prefill", "router"])
def test_a_missing_model_folder(module: str, start: Start, tmp_path: Path) -> None:
    code, sentence = start(module, "--model", str(tmp_path / "nowhere"))
    assert code == EXIT_WRONG_SETTING
    assert sentence.startswith(f"{module}: ")
    assert str(tmp_path / "nowhere") in sentence


def test_an_unsupported_architecture(start: Start, tmp_path: Path) -> None:
    """A model without attention has no KV to hand over."""
    folder = make_random_model("llama", tmp_path / "stateful")
    rewrite_config(folder, architectures=["MambaForCausalLM"], model_type="mamba", vocab_size=512)
    code, sentence = start("decode", "--model", str(folder))
    assert code == EXIT_WRONG_SETTING
    assert "MambaForCausalLM is not supported" in sentence


def test_an_architecture_whose_weights_are_not_there(start: Start, tmp_path: Path) -> None:
    folder = make_random_model("llama", tmp_path / "misnamed")
    config = json.loads((folder / "config.json").read_text())
    rewrite_config(folder, **(config | {"architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2"}))
    code, sentence = start("decode", "--model", str(folder))
    assert code == EXIT_WRONG_SETTING
    assert "do not fit Starcoder2ForCausalLM" in sentence


def test_a_type_that_is_not_served(start: Start, tmp_path: Path, model: Path) -> None:
    """Asked for by flag, or by the model's own config when nothing is asked for."""
    code, sentence = start("worker", "--model", str(model), "--dtype", "float16")
    assert code == EXIT_WRONG_SETTING
    assert "auto, float32, bfloat16" in sentence
    folder = make_random_model("llama", tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    rewrite_config(folder, **(config | {"torch_dtype": "float16"}))
    code, sentence = start("worker", "--model", str(folder))
    assert code == EXIT_WRONG_SETTING
    assert "float16, which is not served" in sentence


@pytest.mark.parametrize(
    ("module", "flag", "more"), [("router", "--port", ()), ("worker", "--health-port", ("--num-blocks", "16"))]
)
def test_a_port_in_use(
    module: str, flag: str, more: tuple[str, ...], start: Start, model: Path, listening_port: int
) -> None:
    code, sentence = start(module, "--model", str(model), flag, str(listening_port), *more)
    assert code == EXIT_WRONG_SETTING
    assert str(listening_port) in sentence
    assert "in use" in sentence


@pytest.mark.parametrize("module", ["router", "decode"])
def test_an_unreachable_redis(module: str, start: Start, model: Path) -> None:
    """The exit status says that starting it again later may help."""
    code, sentence = start(module, "--model", str(model), redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert code == EXIT_UNAVAILABLE
    assert "Redis did not answer" in sentence


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_kv_folder(start: Start, model: Path, full_folder: Path) -> None:
    code, sentence = start("worker", "--model", str(model), "--kv-dir", str(full_folder), "--num-blocks", "1000")
    assert code == EXIT_WRONG_SETTING
    assert f"does not fit into {full_folder}" in sentence
    assert not list(full_folder.iterdir())


async def test_poison_and_prompts_beyond_the_pool_leave_the_rest_alone(model: Path, tmp_path: Path) -> None:
    """Entries that nobody can read are dead-lettered with their reason; what no worker can hold is refused at the door."""
    flags = ("--dtype", "float32", "--num-blocks", str(NUM_BLOCKS))
    prompt = list(range(300, 320))
    async with Cluster(tmp_path, model, ("mixed",), worker_flags=flags) as cluster:
        keys = Keys(cluster.name)
        [worker] = await cluster.live_workers()
        with redis.Redis.from_url(cluster.redis.url) as client:
            poisoned = [keys.queue(stream) for stream in keys.streams[: len(BAND_EDGES_TOKENS)]]
            poisoned.append(keys.decode(worker["worker_id"]))
            for key in poisoned:
                client.xadd(key, {"r": "nobody", "a": "1", "j": b"\xc1 no message", "nonsense": b"\xff"})

            answers = [await cluster.complete([token, *prompt], max_tokens=8, ignore_eos=True) for token in (260, 261)]
            await wait_until(lambda: client.xlen(keys.dead) == len(poisoned), 20, "every poison entry is buried")
            letters = [fields for _, fields in client.xrange(keys.dead)]
            assert {letter[b"source"].decode().rpartition(" ")[0] for letter in letters} == set(poisoned)
            assert all(b"job" in letter[b"reason"] for letter in letters)
            await wait_until(lambda: not any(client.xlen(key) for key in poisoned), 20, "the streams are empty")

            too_long = await cluster.complete([300] * POOL_TOKENS, max_tokens=1)
            too_long_answer = await cluster.complete([300] * 10, max_tokens=POOL_TOKENS)
            assert leaked_keys(client) == []
            async with cluster.http.get(f"{cluster.url}/admin/queues") as response:
                queues = orjson.loads(await response.read())
    assert (queues["num_waiting"], queues["num_prefilling"]) == (0, 0)
    for token, answer in zip((260, 261), answers, strict=True):
        assert answer.error is None
        assert_greedy(model, [token, *prompt], answer.token_ids, num_expected=8)
    for refused in (too_long, too_long_answer):
        assert refused.status == 400
        assert refused.error is not None
        assert refused.error["code"] == "context_length_exceeded"
        assert "KV pools" in refused.error["message"]
