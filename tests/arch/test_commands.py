"""What the documents tell people to type exists: make targets, brigade commands and their flags, files."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from brigade.cli import COMMANDS
from brigade.commands.up import parser as up_parser

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def commands_in(document: str) -> list[list[str]]:
    """Return the lines of a document's shell blocks that call make or brigade, split into words, without comments."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    ours = [line for line in lines if Path(line.split(" ", 1)[0]).name in ("make", "brigade")]
    return [shlex.split(line, comments=True) for line in ours]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_in_the_documents_exist(document: str) -> None:
    """A reader who types what the document says gets what it says."""
    asked = [word for words in commands_in(document) if words[0] == "make" for word in words[1:] if "=" not in word]
    assert asked, f"{document} names no make target"
    assert set(asked) <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_brigade_commands_in_the_documents_exist(document: str) -> None:
    """Commands are known, and the flags of `brigade up` parse."""
    for words in commands_in(document):
        if Path(words[0]).name != "brigade":
            continue
        assert words[1] in COMMANDS, words
        if words[1] == "up":
            up_parser().parse_args(words[2:])


def test_ci_runs_what_a_developer_runs() -> None:
    """.ci/run is `make test`, nothing more."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "exec make test"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_torch_is_asked_for_in_one_version_everywhere() -> None:
    """The set-up script and the image install the torch that the package metadata asks for."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (spec,) = (name for name in metadata["project"]["dependencies"] if name.startswith("torch"))
    for name in ("deploy/setup.sh", "Dockerfile"):
        assert spec in (ROOT / name).read_text(encoding="utf-8"), name
