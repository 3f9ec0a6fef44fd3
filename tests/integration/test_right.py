"""Right: in every configuration, each answer is one that transformers could have given.

One process, real worker hosts, pools in shared memory, a real Redis and the real owner of requests; models of two layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.emulated_cluster import EmulatedCluster
from support.in_process import (
    CONTEXT_TOKENS,
    GREEDY,
    Reply,
    TinyModel,
    all_ended,
    answers_to,
    ask,
    crowd,
    make_spec,
    make_tiny_model,
    renamed,
    start_workers,
    with_salts,
)
from support.reference_answers import (
    assert_greedy_in_bfloat16,
    assert_reference_answer,
    assert_same_but_for_ties,
    assert_same_up_to_bfloat16_noise,
)
from support.waiting import wait_until

from brigade.bus.inspect import request_record
from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from brigade.engine.folder import LEAN_ARCHITECTURES, open_folder

pytestmark = pytest.mark.usefixtures("no_key_leaks")

P, D, M = Role.PREFILL, Role.DECODE, Role.MIXED
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "olmo2")
FALLBACK = "olmo2"
TOPOLOGIES = {"1P1D": (P, D), "2P2D": (P, P, D, D), "mixed": (M,)}
MAX_BATCH_TOKENS = {"chunked": 40, "whole": 2048}
PREFIXES = ("shared", "apart")
ALONE = ("greedy-1", f"greedy-{CONTEXT_TOKENS - 1}", "greedy-90", "eos", "sampled", "sampled-filters", "logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    architecture: str
    topology: str
    chunking: str
    prefixes: str

    def __str__(self) -> str:
        return f"{self.architecture}-{self.topology}-{self.chunking}-{self.prefixes}"


CONFIGURATIONS = [
    Configuration(architecture=a, topology=t, chunking=c, prefixes=p)
    for a, t, c, p in product(ARCHITECTURES, TOPOLOGIES, MAX_BATCH_TOKENS, PREFIXES)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyModel]:
    """The model of an architecture, made when it is first asked for."""
    made: dict[tuple[str, str], TinyModel] = {}

    def get(architecture: str, dtype: str = "float32") -> TinyModel:
        if (architecture, dtype) not in made:
            folder = tmp_path_factory.mktemp("right") / f"{architecture}-{dtype}"
            made[architecture, dtype] = make_tiny_model(architecture, folder, dtype=dtype)
        return made[architecture, dtype]

    return get


@pytest.fixture
def kv_dir() -> Iterator[Path]:
    """A folder in shared memory, empty in the end."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="brigade-test-right-") as folder:
        yield Path(folder)
        left = [path.name for path in Path(folder).iterdir()]
        assert not left, f"pools left behind: {left}"


@pytest.fixture
def new_cluster(redis_url: str, installation: str, kv_dir: Path) -> Callable[[], EmulatedCluster]:
    """A cluster without workers. When it is left, every ledger must be idle and pass its self-check."""
    return lambda: EmulatedCluster(redis_url, installation, kv_dir)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
async def test_answers_are_the_references(
    configuration: Configuration,
    models: Callable[..., TinyModel],
    new_cluster: Callable[[], EmulatedCluster],
) -> None:
    """Some requests alone, then 32 at once: greedy, sampled, ended in every way, with and without prefix hits."""
    model = models(configuration.architecture)
    specs = crowd(model)
    lonely = renamed([spec for spec in specs if spec.request_id in ALONE], "-alone")
    if configuration.prefixes == "apart":
        specs, lonely = with_salts(specs), with_salts(lonely)
    assert (len(specs), len(lonely)) == (32, len(ALONE))

    async with new_cluster() as cluster:
        roles, budget = TOPOLOGIES[configuration.topology], MAX_BATCH_TOKENS[configuration.chunking]
        await start_workers(cluster, model, roles, max_batch_tokens=budget)
        alone = [(await answers_to(cluster, [spec]))[0] for spec in lonely]
        together = await answers_to(cluster, specs)
        at_once = {spec.request_id for spec in specs if await num_attempts(cluster, spec) == 1}

    for spec, reply in zip((*lonely, *specs), (*alone, *together), strict=True):
        assert reply.finish_reason is not None
        assert_reference_answer(model.folder, spec, reply.tokens, reply.finish_reason)
    replies = {spec.request_id: reply for spec, reply in zip(specs, together, strict=True)}
    for spec, reply in zip(lonely, alone, strict=True):
        in_crowd = replies[spec.request_id.removesuffix("-alone")]
        assert_same_but_for_ties(model.folder, spec, reply.token_ids, in_crowd.token_ids)
    check_ends(model, replies)
    check_branches([reply for name, reply in replies.items() if name.startswith("four/")])
    # A request that a busy machine made start again finds blocks of its own first attempt.
    others = [reply for name, reply in replies.items() if name in at_once and not name.startswith("four/")]
    assert (sum(reply.num_cached_tokens for reply in others) > 0) == (configuration.prefixes == "shared")


async def num_attempts(cluster: EmulatedCluster, spec: RequestSpec) -> int:
    record = await request_record(cluster.bus, spec.request_id)
    assert record is not None
    return int(record["attempt"])


def check_ends(model: TinyModel, replies: dict[str, Reply]) -> None:
    """The requests that differ only in how they may end did end differently: the rules were put to the test."""
    eos, early = replies["eos"], replies["stop-token-ids"]
    assert (eos.token_ids[-1], eos.finish_reason) == (model.eos, "stop")
    assert (early.token_ids[-1], early.finish_reason) == (model.early, "stop")
    assert len(early.token_ids) < len(eos.token_ids) < 15 <= len(replies["min-tokens"].token_ids)
    assert model.eos in replies["ignore-eos"].token_ids[:-1]
    assert len(replies["first-is-last"].token_ids) == 1
    assert len(replies["to-the-limit"].token_ids) == CONTEXT_TOKENS - 1


def check_branches(branches: list[Reply]) -> None:
    """Branches share the blocks of their prompt and nothing else."""
    assert sum(branch.num_cached_tokens for branch in branches) > 0
    assert len({tuple(branch.token_ids) for branch in branches}) == len(branches) == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_in_bfloat16_a_lost_worker_changes_no_accepted_token(
    architecture: str, models: Callable[..., TinyModel], new_cluster: Callable[[], EmulatedCluster]
) -> None:
    """The continuation is that of a fresh run on prompt and accepted prefix, and both are right up to bfloat16 noise."""
    model = models(architecture, dtype="bfloat16")
    sampling = replace(GREEDY, num_logprobs=0)
    specs = [make_spec(f"r{n}", range(270, 270 + n), sampling, max_tokens=80) for n in (1, 17, 64, 100, 130, 170)]
    async with new_cluster() as cluster:
        with capture_logs() as logs:
            workers = await start_workers(cluster, model, (P, D, D), max_batch_tokens=40, dtype="bfloat16")
            replies = await ask(cluster, specs)
            await wait_until(lambda: any(len(r.token_ids) > 10 for r in replies), what="some tokens are out")
            await cluster.kill(workers[1] if workers[1].life.decode.batch.num_sequences else workers[2])
            await all_ended(specs, replies)
        assert not [entry for entry in logs if entry["event"] == "accepted_token_differs"]
        raised = {e["request_id"]: e["prefix_tokens"] for e in logs if e["event"] == "attempt_raised"}
        assert any(raised.values()), "the lost worker had decoded nothing"
        fresh_specs = [
            make_spec(
                f"{spec.request_id}-fresh",
                (*spec.prompt_token_ids, *reply.token_ids[:num_accepted]),
                sampling,
                max_tokens=spec.stop.max_tokens - num_accepted,
            )
            for spec, reply in zip(specs, replies, strict=True)
            if (num_accepted := raised.get(spec.request_id))
        ]
        fresh = await answers_to(cluster, fresh_specs)

    num_best = num_tokens = 0
    for spec, reply in zip((*specs, *fresh_specs), (*replies, *fresh), strict=True):
        num_best += assert_greedy_in_bfloat16(model.folder, spec, reply.tokens)
        num_tokens += len(reply.tokens)
    assert num_best > 0.9 * num_tokens
    answers = {spec.request_id: reply.token_ids for spec, reply in zip(specs, replies, strict=True)}
    for spec, reply in zip(fresh_specs, fresh, strict=True):
        name = spec.request_id.removesuffix("-fresh")
        continued = answers[name][raised[name] :]
        assert_same_up_to_bfloat16_noise(model.folder, spec, continued, reply.token_ids)


def test_the_fallback_does_fall_back(models: Callable[..., TinyModel]) -> None:
    """The table has one architecture that our own forward does not know, and all that it knows."""
    known = {name: open_folder(models(name).folder) for name in ARCHITECTURES}
    assert [name for name, folder in known.items() if not folder.is_lean] == [FALLBACK]
    assert {folder.architecture for folder in known.values() if folder.is_lean} == set(LEAN_ARCHITECTURES)
