"""`transformers serve --continuous-batching` as a process, for the comparison over HTTP. Needs fastapi, uvicorn and accelerate,
which are no dependencies of ours: without them there is no such comparison."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from benchmarks.installation import START_DEADLINE_S, STOP_DEADLINE_S, process_cpu_s
from brigade.runtime.redis_server import free_port

NUM_BLOCKS, MAX_BATCH_TOKENS = 256, 1024


def is_installed() -> bool:
    """Whether what `transformers serve` needs is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("fastapi", "uvicorn", "accelerate"))


def without_end_ids(model: Path, folder: Path) -> Path:
    """Copy a model folder so that no answer ends before max_tokens: the server knows no ignore_eos."""
    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False}), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}), encoding="utf-8")
    return folder


class TransformersServer:
    """Use as a context manager."""

    def __init__(self, model: Path, *, dtype: str, num_threads: int, log: Path) -> None:
        self.port = free_port()
        self.model_name = str(model)
        self._log = log
        self._environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(num_threads),
            "OMP_WAIT_POLICY": "passive",
        }
        self._command = [str(Path(sys.executable).with_name("transformers")), "serve", self.model_name]
        self._command += ["--continuous-batching", "--cb-num-blocks", str(NUM_BLOCKS)]
        self._command += ["--cb-max-batch-tokens", str(MAX_BATCH_TOKENS), "--attn-implementation", "sdpa"]
        self._command += ["--device", "cpu", "--dtype", dtype, "--host", "127.0.0.1", "--port", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TransformersServer:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        self._end()
        raise RuntimeError("transformers serve did not start:\n" + self._log.read_text("utf-8")[-3000:])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def cpu_s(self) -> float:
        assert self._process is not None
        return process_cpu_s(self._process.pid)

    def _end(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
