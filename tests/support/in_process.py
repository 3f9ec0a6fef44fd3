"""Whole worker hosts with the real engine in this process, and a crowd of requests that asks for everything they can do."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brigade.core.answer import AcceptedTokens
from brigade.core.messages import Role
from brigade.core.request import RequestSpec
from brigade.core.sampling import SamplingParams, StopParams
from brigade.core.step import Sampled
from brigade.engine.load import block_bytes, load_engine, model_info
from brigade.engine.random_models import TINY, make_random_model
from services.worker.loading import LAYOUT
from services.worker.machine import make_machine, new_threads
from support.emulated_cluster import Answer, EmulatedCluster, Member
from support.reference_answers import reference_greedy
from support.waiting import wait_until

CONTEXT_TOKENS = 256
BLOCK_SIZE_TOKENS = 16
FIRST_PLAIN_ID = 260  # below are bytes and special tokens
GREEDY = SamplingParams(temperature=0.0)

PROMPT_LENGTHS = (1, 2, 15, 16, 17, 31, 33, 47, 49, 64, 65, 90, 129, 200, 244, CONTEXT_TOKENS - 1)
SHARED_PREFIX_TOKENS = 3 * BLOCK_SIZE_TOKENS


class Reply(Answer):
    """An answer that keeps log-probabilities too."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[Sampled] = []

    def on_tokens(self, accepted: AcceptedTokens) -> str | None:
        self.tokens += accepted.tokens
        return super().on_tokens(accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """A random model of two layers. Its greedy answer to `probe` meets `eos`, one of its end ids, and before it `early`."""

    folder: Path
    end_ids: frozenset[int]
    probe: tuple[int, ...]
    eos: int
    early: int


def make_tiny_model(architecture: str, folder: Path, *, dtype: str = "float32") -> TinyModel:
    """Write a model folder whose list of end ids holds a token that the model does say."""
    size = replace(TINY, max_model_len_tokens=CONTEXT_TOKENS, dtype=dtype)
    make_random_model(architecture, folder, size=size, seed=5)
    probe = tuple(range(300, 309))
    said = list(dict.fromkeys(reference_greedy(folder, probe, 12)))
    assert len(said) >= 6, f"the answer hardly moves: {said}"
    end_ids = [256, said[5]]
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end_ids}))
    return TinyModel(folder=folder, end_ids=frozenset(end_ids), probe=probe, eos=said[5], early=said[2])


async def start_workers(
    cluster: EmulatedCluster,
    model: TinyModel,
    roles: Iterable[Role],
    *,
    max_batch_tokens: int,
    dtype: str = "float32",
    num_blocks: int = 128,
) -> list[Member]:
    """Start a worker for each role, with a pool in shared memory and an engine on one thread."""
    members = []
    for role in roles:
        arena = cluster.make_arena(num_blocks, block_bytes(model_info(model.folder, dtype), BLOCK_SIZE_TOKENS))
        engine = load_engine(
            model.folder,
            dtype=dtype,
            device="cpu",
            num_blocks=num_blocks,
            block_size_tokens=BLOCK_SIZE_TOKENS,
            pool=arena.data,
            num_threads=1,
        )
        assert frozenset(engine.model.eos_token_ids) == model.end_ids
        machine = make_machine(engine, arena=arena, is_staging=False, layout=LAYOUT, threads=new_threads())
        bus = cluster.make_bus()
        members.append(await cluster.start(machine, role, max_batch_tokens=max_batch_tokens, max_num_seqs=24, bus=bus))
    return members


async def ask(cluster: EmulatedCluster, specs: Sequence[RequestSpec]) -> list[Reply]:
    """Submit requests together and return their replies, which fill as tokens come."""
    await wait_until(lambda: cluster.owner.is_ready() is None, what="the installation is ready")
    replies = [Reply() for _ in specs]
    cluster.owner.submit(specs, replies)
    return replies


async def answers_to(cluster: EmulatedCluster, specs: Sequence[RequestSpec]) -> list[Reply]:
    """Submit requests together and return their whole answers."""
    replies = await ask(cluster, specs)
    await all_ended(specs, replies)
    return replies


async def all_ended(specs: Sequence[RequestSpec], replies: Sequence[Reply]) -> None:
    """Return when every reply has ended; AssertionError when one did so with an error."""
    await wait_until(lambda: all(reply.has_ended for reply in replies), deadline_s=60, what="all answers end")
    for spec, reply in zip(specs, replies, strict=True):
        assert reply.error is None, f"{spec.request_id}: {reply.error}"


def make_spec(
    name: str,
    prompt: Sequence[int],
    sampling: SamplingParams = GREEDY,
    *,
    max_tokens: int = 12,
    min_tokens: int = 0,
    end_ids: frozenset[int] = frozenset(),
) -> RequestSpec:
    """A request that no end id stops unless it is given some (as with `ignore_eos`)."""
    stop = StopParams(max_tokens=max_tokens, min_tokens=min_tokens, stop_token_ids=end_ids)
    return RequestSpec(request_id=name, prompt_token_ids=tuple(prompt), sampling=sampling, stop=stop, arrival_s=1000.0)


def branches(name: str, prompt: Sequence[int], n: int, *, seed: int) -> list[RequestSpec]:
    """The requests of one client request with n > 1, as the router makes them: branch i draws with seed + i."""
    return [make_spec(f"{name}/{i}", prompt, SamplingParams(seed=seed + i), max_tokens=10) for i in range(n)]


def crowd(model: TinyModel) -> list[RequestSpec]:
    """32 requests: prompts from one token to the context limit, every way to draw and to end, one with four branches."""
    rng = random.Random(11)

    def tokens(num: int) -> list[int]:
        return rng.choices(range(FIRST_PLAIN_ID, TINY.vocab_size), k=num)

    shared = tokens(SHARED_PREFIX_TOKENS)
    lengths = {
        f"greedy-{n}": (*shared[:n], *tokens(max(0, n - len(shared)))) if n > len(shared) else tuple(tokens(n))
        for n in PROMPT_LENGTHS
    }
    return [
        *(make_spec(k, p, max_tokens=min(12, CONTEXT_TOKENS - len(p))) for k, p in lengths.items()),
        make_spec("to-the-limit", tokens(1), max_tokens=CONTEXT_TOKENS - 1),
        make_spec("eos", model.probe, max_tokens=20, end_ids=model.end_ids),
        make_spec("ignore-eos", model.probe, max_tokens=20),
        make_spec("min-tokens", model.probe, max_tokens=20, min_tokens=15, end_ids=model.end_ids),
        make_spec("stop-token-ids", model.probe, max_tokens=20, end_ids=model.end_ids | {model.early}),
        make_spec("first-is-last", model.probe, max_tokens=1),
        make_spec("logprobs", tokens(30), SamplingParams(temperature=0.0, num_logprobs=5)),
        make_spec(
            "penalties", tokens(20), replace(GREEDY, repetition_penalty=1.3, frequency_penalty=0.7), max_tokens=30
        ),
        make_spec("sampled", tokens(40), SamplingParams(seed=7), max_tokens=24),
        make_spec(
            "sampled-filters", tokens(5), SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, seed=8)
        ),
        make_spec("sampled-logprobs", (*shared, *tokens(9)), SamplingParams(seed=2**62 + 1, num_logprobs=0)),
        make_spec(
            "sampled-penalty", tokens(12), SamplingParams(temperature=0.7, presence_penalty=2.0, seed=9), max_tokens=30
        ),
        *branches("four", (*shared, *tokens(25)), 4, seed=100),
    ]


def with_salts(specs: Sequence[RequestSpec]) -> list[RequestSpec]:
    """The same requests as tenants of their own: no prefix cache may connect two of them, but branches of one."""
    return [replace(spec, cache_salt=spec.request_id.partition("/")[0]) for spec in specs]


def renamed(specs: Sequence[RequestSpec], suffix: str) -> list[RequestSpec]:
    """The same requests once more: ids are never used twice."""
    return [replace(spec, request_id=spec.request_id + suffix) for spec in specs]
