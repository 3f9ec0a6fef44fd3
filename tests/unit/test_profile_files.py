"""Profile files: the bundled ones come from their sources, and a wrong one is refused with file and field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from brigade.core.errors import ConfigError
from brigade.policies.cost_model import PrefillPart
from brigade.policies.profile import dump_profile, file_name, load_profile, parse_profile, profile_names, read_profile
from profiles.importers.__main__ import FOLDER, all_documents

LINEAR = json.loads((FOLDER / file_name("a100/opt-13b/tp1")).read_text())
GRID = json.loads((FOLDER / file_name("h100/llama-3.1-8b/tp1")).read_text())
TABLE = json.loads((FOLDER / file_name("a100/llama-2-70b/tp2")).read_text())


def test_bundled_profiles_are_what_their_sources_give() -> None:
    """Nobody edits a profile by hand: the importers write every file again, byte for byte, and there is no other one."""
    texts = {str(document["name"]): dump_profile(document) for document in all_documents(FOLDER / "source")}
    assert sorted(texts) == profile_names()
    for name, text in texts.items():
        assert (FOLDER / file_name(name)).read_text(encoding="utf-8") == text, name


def test_every_bundled_profile_says_where_it_comes_from() -> None:
    """Source and licence travel with the numbers."""
    for name in profile_names():
        profile = read_profile(name)
        assert profile.name == name
        assert profile.licence in ("Apache-2.0", "MIT")
        assert "@" in profile.source or "aiconfigurator" in profile.source


def test_imported_prefill_curves_are_close_to_their_points() -> None:
    """Reducing batch x length to a curve and an attention price costs less than a percent on average."""
    found = [read_profile(name).residuals for name in profile_names() if read_profile(name).origin == "composed"]
    assert len(found) >= 40
    assert max(residuals["prefill"]["mean_rel"] for residuals in found) < 0.01
    assert max(residuals["prefill"]["max_rel"] for residuals in found) < 0.06


def test_a_profile_is_found_by_path_too(tmp_path: Path) -> None:
    """A file of one's own prices as the bundled one with the same numbers."""
    path = tmp_path / "mine.json"
    path.write_text(dump_profile(GRID))
    parts = [PrefillPart(num_new_tokens=700, num_context_tokens=100)]
    assert load_profile(path).prefill_ns(parts) == load_profile("h100/llama-3.1-8b/tp1").prefill_ns(parts)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """The sentence helps with a typing error."""
    with pytest.raises(ConfigError, match=r"'h100/llama-9/tp1'.*bundled: .*h100/llama-3\.1-8b/tp1"):
        load_profile("h100/llama-9/tp1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": NaN}', "[" * 100_000, '{"format": "brigade-profile/2"}', "\udcff"]
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    """Whatever is wrong, the error names the file."""
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"broken\.json"):
        load_profile(path)


def test_a_missing_file_is_named() -> None:
    """A path is never taken for a name."""
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        load_profile("nowhere.json")


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy with one field set, or removed if the value is `...`."""
    document = copy.deepcopy(document)
    *parents, name = path.split(".")
    inner: Any = document
    for parent in parents:
        inner = inner[int(parent)] if parent.isdecimal() else inner[parent]
    if value is ...:
        del inner[name]
    else:
        inner[int(name) if name.isdecimal() else name] = value
    return document


WRONG: list[tuple[dict[str, Any], str, object, str]] = [
    (LINEAR, "prefill.base_ns", -1.0, "prefill.base_ns"),
    (LINEAR, "prefill.base_ns", float("nan"), "prefill.base_ns"),
    (LINEAR, "prefill.base_ns", float("inf"), "prefill.base_ns"),
    (LINEAR, "prefill.base_ns", "18", "prefill.base_ns"),
    (LINEAR, "prefill.base_ns", True, "prefill.base_ns"),
    (LINEAR, "prefill.per_token_ns", ..., "prefill.per_token_ns is missing"),
    (LINEAR, "prefill.per_tokens_ns", 1, "prefill.per_tokens_ns is unknown"),
    (LINEAR, "prefill.form", "cubic", "prefill.form"),
    (LINEAR, "prefill.form", ["linear"], "prefill.form"),
    (LINEAR, "decode.regimes", [], "decode.regimes"),
    (LINEAR, "decode.regimes.0.min_batch", 2, "decode.regimes must begin at min_batch 1"),
    (LINEAR, "decode.regimes.1.min_batch", 1, "decode.regimes must begin"),
    (LINEAR, "decode.regimes.1.base_ns", -5, r"decode.regimes\[1\].base_ns"),
    (LINEAR, "kv", ..., "kv is missing"),
    (LINEAR, "kv.capacity_tokens", 0, "kv.capacity_tokens"),
    (LINEAR, "kv.capacity_tokens", 1.5, "kv.capacity_tokens"),
    (LINEAR, "kv.capacity_tokens_by_pipeline", {"two": 1}, "kv.capacity_tokens_by_pipeline.two"),
    (LINEAR, "transfer.bytes_per_s", 0, "transfer.bytes_per_s"),
    (LINEAR, "transfer.latency_ns", -1, "transfer.latency_ns"),
    (LINEAR, "transfer.origin", "guessed", "transfer.origin"),
    (LINEAR, "num_gpus", 0, "num_gpus"),
    (LINEAR, "host_step_ns", 10**400, "host_step_ns"),
    (LINEAR, "origin", "heard", "origin"),
    (LINEAR, "name", "", "name"),
    (LINEAR, "notes", "one", "notes"),
    (LINEAR, "extra", 1, "extra is unknown"),
    (LINEAR, "residuals", {"prefill": {"max_rel": "small"}}, "residuals.prefill.max_rel"),
    (GRID, "prefill.tokens", [32, 32], "prefill"),
    (GRID, "prefill.ns", [1.0], "prefill.ns has 1 values"),
    (GRID, "decode.rows", [], "decode.rows"),
    (GRID, "decode.rows.1.batch", 1, r"decode.rows\[1\].batch 1 stands in another row"),
    (GRID, "decode.rows.0.ns.3", -1, r"decode.rows\[0\].ns"),
    (GRID, "decode.rows.0", 5, r"decode.rows\[0\] must be an object"),
    (TABLE, "decode.batches.0", 0, "decode.batches"),
    (TABLE, "prefill.tokens", [], "prefill"),
]


@pytest.mark.parametrize(("document", "path", "value", "message"), WRONG)
def test_a_wrong_field_is_named(document: dict[str, Any], path: str, value: object, message: str) -> None:
    """Negative and infinite times, missing and unknown fields: one sentence with file and field."""
    broken = changed(document, path, value)
    with pytest.raises(ConfigError, match=rf"^file\.json: {message}"):
        parse_profile(broken, where="file.json")


@pytest.mark.parametrize("document", [LINEAR, GRID, TABLE])
def test_the_unbroken_documents_are_accepted(document: dict[str, Any]) -> None:
    """Else the refusals above would prove nothing; and writing keeps every number."""
    assert parse_profile(document, where="file.json").name == document["name"]
    assert json.loads(dump_profile(document)) == document
