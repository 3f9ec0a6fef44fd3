"""Compiles the C++ attention kernel for this machine and keeps the result in the user's cache folder.

A plain shared library called through ctypes: about five seconds once, no build system, no headers of torch. It is
linked against the very OpenMP runtime that torch brings, since two in one process fight over the cores.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("paged_attention.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fno-math-errno", "-fopenmp", "-Wno-psabi")
_BUILD_TIMEOUT_S = 120


class NoCompiler(Exception):
    """The kernel cannot be built here; the message says why in a few words."""


def load_kernel(cache_folder: Path | None = None) -> ctypes.CDLL:
    """Return the compiled kernel, building it when this source, compiler and CPU have not met. Raises NoCompiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoCompiler("there is no g++")
    openmp = _torch_openmp()
    folder = cache_folder or default_cache_folder()
    library = folder / f"paged_attention-{_key(compiler, openmp)}.so"
    if not library.is_file():
        _build(compiler, openmp, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NoCompiler(f"the compiled kernel does not load: {error}") from None


def default_cache_folder() -> Path:
    """Return the user's cache folder for this project, by the XDG rule. Raises NoCompiler for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brigade"
    except RuntimeError:
        raise NoCompiler("neither XDG_CACHE_HOME nor a home folder is set to keep the kernel in") from None


def _torch_openmp() -> Path:
    root = Path(torch.__file__).parent
    for folder in (root / "lib", root.parent / "torch.libs"):
        for file in sorted(folder.glob("libgomp*.so*")):
            return file
    raise NoCompiler("torch brings no libgomp to link against")


def _key(compiler: str, openmp: Path) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.blake2b(digest_size=12)
    for part in (_SOURCE.read_text(encoding="utf-8"), version, " ".join(_FLAGS), str(openmp), _cpu_flags()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _cpu_flags() -> str:
    """What -march=native depends on: a cache folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def _build(compiler: str, openmp: Path, library: Path) -> None:
    """Compile next to the target and rename, so that workers starting together never see half a file."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made, objects = Path(folder) / library.name, Path(folder) / "kernel.o"
            _run([compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(objects)])
            # Without -fopenmp at the link the compiler's own libgomp stays out.
            _run([compiler, "-shared", str(objects), str(openmp), f"-Wl,-rpath,{openmp.parent}", "-o", str(made)])
            made.replace(library)
    except OSError as error:
        raise NoCompiler(f"the kernel cannot be written to {library.parent}: {error.strerror}") from None


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NoCompiler(f"g++ took more than {_BUILD_TIMEOUT_S} s") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise NoCompiler(f"g++ failed: {first}")
