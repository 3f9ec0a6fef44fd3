"""Scenario files: a cluster, a workload, targets and what goes wrong, checked before anything runs.

The tables [workload] and [slo] are shared with `brigade bench`. Every error is one sentence with file, line and field.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from brigade.core.errors import ConfigError
from brigade.core.messages import Role
from brigade.policies.batching import BATCHING_POLICIES
from brigade.policies.cost_forms import StepCosts
from brigade.policies.cost_model import PrefillPart
from brigade.policies.placement import PLACEMENT_POLICIES
from brigade.policies.profile import load_profile
from brigade.workload.spec import DrawnLengths, FixedLengths, WorkloadSpec, load_workload
from brigade.workload.toml_table import Table, TomlFile

MAX_WORKERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One worker. `slowdown` multiplies its step times; it registers at `start_s`."""

    worker_id: str
    role: Role
    profile: str
    num_blocks: int
    max_batch_tokens: int
    max_num_seqs: int
    slowdown: float = 1.0
    start_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureSpec:
    """A worker dies; `back_after_s` later it registers again, with an empty pool, or never."""

    worker_id: str
    at_s: float
    back_after_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSpec:
    """An operator's wish for a role, decided by the policy that decides it live."""

    worker_id: str
    role: Role
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that a run depends on but its seed."""

    name: str
    path: str
    seed: int
    workload: WorkloadSpec
    workers: tuple[WorkerSpec, ...]
    profiles: dict[str, StepCosts]
    block_size_tokens: int
    batching: str
    placement: str
    heartbeat_interval_s: float
    heartbeat_ttl_s: float
    max_attempts: int
    max_model_len_tokens: int
    hand_over_s: float
    host_step_s: float | None
    failures: tuple[FailureSpec, ...] = ()
    flips: tuple[FlipSpec, ...] = ()

    def unloaded_prefill_ns(self, isl: int) -> int:
        """Price a prompt alone on the first worker that prefills."""
        costs = self.profiles[next(worker.profile for worker in self.workers if worker.role.prefills)]
        return costs.prefill_ns([PrefillPart(num_new_tokens=isl)])

    @property
    def num_gpus(self) -> int:
        return sum(self.profiles[worker.profile].num_gpus for worker in self.workers)


def load_scenario(path: str) -> Scenario:
    """Read and check a scenario file. Raises ConfigError."""
    root = TomlFile.read(path).root()
    workload = load_workload(root)
    cluster = root.take_table("cluster")
    if cluster is None:
        raise root.error("cluster", "is missing: a scenario needs a table [cluster]")
    profiles: dict[str, StepCosts] = {}
    block_size_tokens = cluster.take_int("block_size_tokens", 16, least=1)
    workers = _load_workers(cluster, profiles, block_size_tokens)
    interval_s = cluster.take_float("heartbeat_interval_s", 0.5, above=0)
    ttl_s = cluster.take_float("heartbeat_ttl_s", 3.0, above=0)
    if ttl_s < 2 * interval_s:
        raise cluster.error("heartbeat_ttl_s", f"must be at least twice heartbeat_interval_s, not {ttl_s:g}")
    names = [worker.worker_id for worker in workers]
    scenario = Scenario(
        name=root.take_text("name", path),
        path=path,
        seed=root.take_int("seed", 0),
        workload=workload,
        workers=workers,
        profiles=profiles,
        block_size_tokens=block_size_tokens,
        batching=cluster.take_text("batching", "class-priority-arrival", among=BATCHING_POLICIES),
        placement=cluster.take_text("placement", "least-busy", among=PLACEMENT_POLICIES),
        heartbeat_interval_s=interval_s,
        heartbeat_ttl_s=ttl_s,
        max_attempts=cluster.take_int("max_attempts", 5, least=1),
        max_model_len_tokens=cluster.take_int("max_model_len_tokens", 1 << 40, least=1),
        hand_over_s=cluster.take_float("hand_over_s", 0.0, above=-1e-12),
        host_step_s=cluster.take_float("host_step_s", above=-1e-12) if cluster.has("host_step_s") else None,
        failures=_load_failures(root, names),
        flips=_load_flips(root, names),
    )
    cluster.take_nothing("host_step_s")
    _check_cluster(cluster, scenario)
    _check_slo(root, scenario)
    cluster.finish()
    root.finish()
    return scenario


def _load_workers(cluster: Table, profiles: dict[str, StepCosts], block_size_tokens: int) -> tuple[WorkerSpec, ...]:
    default_profile = cluster.take_text("profile") if cluster.has("profile") else None
    cluster.take_nothing("profile")
    batch_tokens = cluster.take_int("max_batch_tokens", 2048, least=1)
    num_seqs = cluster.take_int("max_num_seqs", 64, least=1)
    tables = cluster.take_tables("workers")
    if not tables:
        raise cluster.error("workers", "is missing: say what works in [[cluster.workers]]")
    workers: list[WorkerSpec] = []
    for table in tables:
        role = Role(table.take_text("role", among=list(Role)))
        name = table.take_text("name", role.value[0])
        profile = table.take_text("profile", default_profile)
        costs = _profile(table, profile, profiles)
        kv_tokens = table.take_int("kv_tokens", costs.kv_capacity_tokens, least=block_size_tokens)
        count = table.take_int("count", 1, least=1)
        for _ in range(count):
            number = sum(worker.worker_id.rstrip("0123456789") == name for worker in workers)
            workers.append(
                WorkerSpec(
                    worker_id=f"{name}{number}",
                    role=role,
                    profile=profile,
                    num_blocks=kv_tokens // block_size_tokens,
                    max_batch_tokens=table.take_int("max_batch_tokens", batch_tokens, least=1),
                    max_num_seqs=table.take_int("max_num_seqs", num_seqs, least=1),
                    slowdown=table.take_float("slowdown", 1.0, above=0),
                    start_s=table.take_float("start_s", 0.0, above=-1e-12),
                )
            )
            if len(workers) > MAX_WORKERS:
                raise table.error("count", f"makes more than {MAX_WORKERS} workers")
        table.finish()
    return tuple(workers)


def _profile(table: Table, name: str, profiles: dict[str, StepCosts]) -> StepCosts:
    try:
        if name not in profiles:
            profiles[name] = load_profile(name)
    except ConfigError as error:
        raise table.error("profile", f"cannot be used: {error}") from error
    return profiles[name]


def _load_failures(root: Table, names: Collection[str]) -> tuple[FailureSpec, ...]:
    failures = []
    for table in root.take_tables("failures"):
        has_return = table.has("back_after_s")
        failures.append(
            FailureSpec(
                worker_id=table.take_text("worker", among=names),
                at_s=table.take_float("at_s", above=0),
                back_after_s=table.take_float("back_after_s", above=0) if has_return else None,
            )
        )
        table.take_nothing("back_after_s")
        table.finish()
    return tuple(failures)


def _load_flips(root: Table, names: Collection[str]) -> tuple[FlipSpec, ...]:
    flips = []
    for table in root.take_tables("flips"):
        flips.append(
            FlipSpec(
                worker_id=table.take_text("worker", among=names),
                role=Role(table.take_text("role", among=list(Role))),
                at_s=table.take_float("at_s", above=0),
            )
        )
        table.finish()
    return tuple(flips)


def _check_cluster(cluster: Table, scenario: Scenario) -> None:
    """Refuse clusters that can serve nothing."""
    for phase, able in (
        ("prefill", [worker for worker in scenario.workers if worker.role.prefills]),
        ("decode", [worker for worker in scenario.workers if worker.role.decodes]),
    ):
        if not able:
            raise cluster.error("workers", f"is impossible: no worker would {phase}")
    room_tokens = scenario.block_size_tokens * max(w.num_blocks for w in scenario.workers if w.role.decodes)
    least_tokens = _least_request_tokens(scenario.workload)
    if least_tokens is not None and least_tokens > room_tokens:
        raise cluster.error(
            "workers",
            f"is impossible: the smallest request has {least_tokens} tokens, the largest pool room for {room_tokens}",
        )


def _least_request_tokens(workload: WorkloadSpec) -> int | None:
    """Return the smallest prompt and answer together, where lengths are known beforehand."""

    def of(isl: int, osl: int) -> int:
        return min(isl, workload.max_isl or isl) + min(osl, workload.max_osl or osl)

    if not workload.mix:
        return min(of(row.isl, row.osl) for row in workload.trace)
    sizes: list[int] = []
    for part in workload.mix:
        if isinstance(part.lengths, FixedLengths):
            sizes.append(of(part.lengths.isl, part.lengths.osl))
        elif isinstance(part.lengths, DrawnLengths):
            sizes.append(min(of(row.isl, row.osl) for row in part.lengths.rows))
        else:
            return None
    return min(sizes)


def _check_slo(root: Table, scenario: Scenario) -> None:
    """Refuse targets that not even one token on an idle cluster meets."""
    models = scenario.profiles
    prefill_ns = min(
        models[w.profile].prefill_ns([PrefillPart(num_new_tokens=1)]) for w in scenario.workers if w.role.prefills
    )
    decode_ns = min(models[w.profile].decode_step_ns(1, 1) for w in scenario.workers if w.role.decodes)
    table = root.take_table("slo")
    for name, targets in scenario.workload.slo.items():
        pairs: tuple[tuple[Literal["ttft_s", "tpot_s"], float | None, int], ...] = (
            ("ttft_s", None if targets.ttft_unloaded_factor else targets.ttft_s, prefill_ns),
            ("tpot_s", targets.tpot_s, decode_ns),
        )
        for key, target_s, least_ns in pairs:
            if target_s is not None and target_s * 1e9 < least_ns and table is not None:
                where = table if not name else table.take_table(name) or table
                raise where.error(
                    key, f"is impossible: {target_s:g} s, and one token alone takes {least_ns / 1e9:.4g} s"
                )
