"""Profile files: what a kind of worker costs, read alike by live services, the emulated engine and the simulator.

A profile is one JSON file (docs/cost-model.md). Its name is `gpu/model/tpN`; the bundled ones lie in `profiles/` under that name
with underscores for slashes. Every wrong file is a ConfigError that names file and field.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from brigade.core.errors import ConfigError
from brigade.policies.cost_forms import (
    DecodeRegime,
    GridDecode,
    LinearDecode,
    PrefillCosts,
    StepCosts,
    TransferCosts,
    line,
)
from brigade.policies.json_fields import Fields
from brigade.policies.piecewise import Curve, fixed

FORMAT = "brigade-profile/1"
ORIGINS = ("measured", "fitted", "composed", "assumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile file, checked. `costs` prices steps; the rest says where the numbers come from.

    `pipeline_capacity_tokens` is the KV capacity of pipelines of so many stages, where the source gives it; prices are always
    those of one stage with the whole model.
    """

    name: str
    origin: str
    source: str
    licence: str
    notes: tuple[str, ...]
    capacity_rule: str
    pipeline_capacity_tokens: Mapping[int, int]
    residuals: Mapping[str, Mapping[str, float]]
    costs: StepCosts


def load_profile(name_or_path: str | Path) -> StepCosts:
    """Return the cost model of a profile, by file or by the name of a bundled one. Raises ConfigError."""
    return read_profile(name_or_path).costs


def read_profile(name_or_path: str | Path) -> Profile:
    """Return the whole profile, by file or by the name of a bundled one. Raises ConfigError."""
    path = find_profile(name_or_path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as a profile: {error}") from error
    return parse_profile(document, where=str(path))


def find_profile(name_or_path: str | Path) -> Path:
    """Return the file of a profile. A text that ends in .json is a path, everything else a bundled name."""
    if str(name_or_path).endswith(".json"):
        return Path(name_or_path)
    path = profiles_folder() / file_name(str(name_or_path))
    if not path.is_file():
        known = ", ".join(profile_names())
        raise ConfigError(f"no profile is called {str(name_or_path)!r} (a file ends in .json); bundled: {known}")
    return path


def profile_names() -> list[str]:
    """Return the names of the bundled profiles, sorted."""
    return sorted(path.stem.replace("_", "/") for path in profiles_folder().glob("*_*_tp*.json"))


def file_name(name: str) -> str:
    """Return the file name of a bundled profile."""
    return name.replace("/", "_") + ".json"


def profiles_folder() -> Path:
    """Return the folder of the bundled profiles: in the source tree, or where the package was installed."""
    in_source = Path(__file__).parents[2] / "profiles"
    installed = Path(sys.prefix) / "share" / "brigade" / "profiles"
    for folder in (in_source, installed):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the bundled profiles are not installed; looked in {in_source} and {installed}")


def parse_profile(document: object, *, where: str) -> Profile:
    """Check a profile and make its cost model. `where` names the file in errors (ConfigError)."""
    top = Fields(document, where=where)
    found_format = top.text("format")
    if found_format != FORMAT:
        raise top.wrong("format", f"must be {FORMAT!r}, not {found_format!r}")
    name = top.text("name")
    kv = top.part("kv")
    transfer = top.part("transfer")
    capacity_tokens = kv.count("capacity_tokens", least=1)
    bytes_per_token = kv.count("bytes_per_token", least=1)
    transfer.choice("origin", ORIGINS)
    costs = StepCosts(
        name=name,
        kv_capacity_tokens=capacity_tokens,
        prefill=_prefill(top.part("prefill")),
        decode=_decode(top.part("decode")),
        transfer=TransferCosts(
            latency_ns=transfer.count("latency_ns"),
            bytes_per_s=transfer.count("bytes_per_s", least=1),
            bytes_per_token=bytes_per_token,
        ),
        host_step_ns=top.count("host_step_ns"),
        num_gpus=top.count("num_gpus", least=1),
    )
    profile = Profile(
        name=name,
        origin=top.choice("origin", ORIGINS),
        source=top.text("source"),
        licence=top.text("licence"),
        notes=top.texts("notes"),
        capacity_rule=kv.text("rule"),
        pipeline_capacity_tokens=kv.counts_by_number("capacity_tokens_by_pipeline"),
        residuals=_residuals(top.part("residuals")),
        costs=costs,
    )
    for part in (top, kv, transfer):
        part.finish()
    return profile


def _prefill(part: Fields) -> PrefillCosts:
    form = part.choice("form", ("linear", "grid", "table"))
    by_tokens = line(part.time("base_ns"), part.time("per_token_ns")) if form == "linear" else _curve(part, "tokens")
    costs = PrefillCosts(
        by_tokens=by_tokens,
        per_attention=0 if form == "table" else fixed(part.time("per_attention_ns")),
        per_sequence=0 if form == "table" else fixed(part.time("per_sequence_ns")),
    )
    part.finish()
    return costs


def _decode(part: Fields) -> LinearDecode | GridDecode:
    form = part.choice("form", ("linear", "grid", "table"))
    decode: LinearDecode | GridDecode
    if form == "linear":
        regimes = [_regime(regime) for regime in part.parts("regimes")]
        starts = [regime.min_batch for regime in regimes]
        if not starts or starts[0] != 1 or starts != sorted(set(starts)):
            raise part.wrong("regimes", f"must begin at min_batch 1 and rise, not {starts}")
        decode = LinearDecode(regimes)
    elif form == "grid":
        rows = {}
        for row in part.parts("rows"):
            batch = row.count("batch", least=1)
            if batch in rows:
                raise row.wrong("batch", f"{batch} stands in another row as well")
            rows[batch] = row.points("context_tokens", "ns")
            row.finish()
        if not rows:
            raise part.wrong("rows", "must not be empty")
        decode = GridDecode({batch: (counts, [fixed(ns) for ns in times]) for batch, (counts, times) in rows.items()})
    else:
        batches, times = part.points("batches", "ns")
        if batches[0] < 1:
            raise part.wrong("batches", "must begin at 1 or more")
        decode = GridDecode({batch: ((0,), (fixed(ns),)) for batch, ns in zip(batches, times, strict=True)})
    part.finish()
    return decode


def _regime(part: Fields) -> DecodeRegime:
    regime = DecodeRegime(
        min_batch=part.count("min_batch", least=1),
        base=fixed(part.time("base_ns")),
        per_context_token=fixed(part.time("per_context_token_ns")),
        per_sequence=fixed(part.time("per_sequence_ns")),
    )
    part.finish()
    return regime


def _curve(part: Fields, counts_name: str) -> Curve:
    counts, times = part.points(counts_name, "ns")
    return Curve.through(counts, [fixed(ns) for ns in times])


def _residuals(part: Fields) -> Mapping[str, Mapping[str, float]]:
    """Residuals of the fit by phase: documentation for people, checked for being numbers only."""
    return {phase: part.part(phase).numbers() for phase in part.names()}


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def dump_profile(document: Mapping[str, object]) -> str:
    """Return a profile's text: stable, one short line per list so that files can be compared."""
    return _dump(document, 0) + "\n"


def _dump(value: object, depth: int) -> str:
    pad = "  " * (depth + 1)
    if isinstance(value, Mapping) and value:
        inner = [f"{pad}{json.dumps(str(key))}: {_dump(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + "  " * depth + "}"
    if isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        inner = [pad + json.dumps(item, allow_nan=False) for item in value]
        return "[\n" + ",\n".join(inner) + "\n" + "  " * depth + "]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
