"""An emulated GPU computes what any schedule of the same tokens computes, fails on wrong KV, and keeps absolute deadlines."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from brigade.core.sampling import SamplingParams
from brigade.core.step import Sampled, SampleRequest, Slice
from brigade.engine.emulated import emulated_model
from brigade.engine.emulated_gpu import BLOCK, EmulatedGpu, step_ns
from brigade.engine.pace import Pace
from brigade.policies.cost_model import PrefillPart

MS = 1_000_000
SIZE = 4
GREEDY = SamplingParams(temperature=0.0)
MODEL = emulated_model(vocab_size=50, eos_token_ids=(3, 4))


class LinearCosts:
    """Implements CostModel: 10 ms and 1 ms a token to prefill, 5 ms and 1 ms a sequence to decode, 1 us a context token."""

    name = "test/linear/tp1"
    kv_capacity_tokens = 1024

    def prefill_ns(self, parts: Sequence[PrefillPart]) -> int:
        return 10 * MS + MS * sum(part.num_new_tokens for part in parts)

    def decode_step_ns(self, batch: int, num_context_tokens: int) -> int:
        return 5 * MS + batch * MS + num_context_tokens * 1000

    def decode_run_ns(self, batch: int, num_context_tokens: int, num_steps: int) -> int:
        return sum(self.decode_step_ns(batch, num_context_tokens + i * batch) for i in range(num_steps))

    def mixed_step_ns(self, parts: Sequence[PrefillPart], batch: int, num_context_tokens: int) -> int:
        return self.prefill_ns(parts) + self.decode_step_ns(batch, num_context_tokens) - 5 * MS

    def kv_transfer_ns(self, num_tokens: int) -> int:
        return num_tokens * 1000


class Clock:
    """A clock that only sleeping moves, by as much as was asked and `late_ns` more each time."""

    def __init__(self, late_ns: int = 0) -> None:
        self.now = 0
        self.late_ns = late_ns

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + self.late_ns


def make_gpu(clock: Clock | None = None, *, num_blocks: int = 64, time_scale: float = 1.0) -> EmulatedGpu:
    clock = clock or Clock()
    return EmulatedGpu(
        model=MODEL,
        costs=LinearCosts(),
        pace=Pace(time_scale, now_ns=clock.now_ns, sleep=clock.sleep),
        pool=memoryview(bytearray(num_blocks * BLOCK.size)),
        num_blocks=num_blocks,
        block_size_tokens=SIZE,
    )


def ask(gpu: EmulatedGpu, tokens: Sequence[int], num_context: int, table: list[int], **params: object) -> Sampled:
    sampling = SamplingParams(**params) if params else GREEDY  # type: ignore[arg-type]
    sample = SampleRequest(params=sampling, index=0)
    [sampled] = gpu.step([Slice(token_ids=tokens, num_context_tokens=num_context, block_table=table, sample=sample)])
    assert sampled is not None
    return sampled


@pytest.mark.parametrize("seed", range(20))
def test_chunks_and_blocks_do_not_matter(seed: int) -> None:
    """The same tokens give the same token however they are cut and wherever they lie."""
    chance = random.Random(seed)
    tokens = [chance.randrange(50) for _ in range(chance.randrange(2, 40))]
    whole = ask(make_gpu(), tokens, 0, list(range(16)))
    gpu, table, done = make_gpu(), chance.sample(range(64), 16), 0
    while len(tokens) - done > 1:
        num = chance.randrange(1, len(tokens) - done)
        gpu.step([Slice(token_ids=tokens[done : done + num], num_context_tokens=done, block_table=table)])
        done += num
    assert ask(gpu, tokens[done:], done, table) == whole
    others = {ask(gpu, [*tokens[:-1], last], 0, table).token_id for last in range(50)}
    assert len(others) > 20, "answers hardly depend on the sequence"


def test_slices_of_one_step_may_share_a_block() -> None:
    """One slice computes the block that another one, given before it, reads as context."""
    gpu = make_gpu()
    first = Slice(token_ids=[1, 2, 3, 4], num_context_tokens=0, block_table=[5])
    sample = SampleRequest(params=GREEDY, index=0)
    second = Slice(token_ids=[5, 6], num_context_tokens=4, block_table=[5, 6], sample=sample)
    [drawn, _] = gpu.step([second, first])
    assert drawn == ask(make_gpu(), [1, 2, 3, 4, 5, 6], 0, [0, 1])


def test_missing_context_fails() -> None:
    """A sequence whose last block was never written, or not filled as far, is a bug of the caller."""
    gpu = make_gpu()
    gpu.step([Slice(token_ids=[1, 2, 3], num_context_tokens=0, block_table=[0])])
    with pytest.raises(AssertionError, match="block 0 has 3 tokens of KV, not 4"):
        ask(gpu, [5], 4, [0, 1])
    with pytest.raises(AssertionError, match="block 7 has 0 tokens"):
        ask(gpu, [5], 2, [7])


def test_copied_blocks_are_as_good_and_garbled_ones_are_not() -> None:
    """Only the blocks travel; their bytes decide the answer."""
    source, target = make_gpu(), make_gpu()
    whole = ask(source, [1, 2, 3, 4, 5], 0, [0, 1])
    source.step([Slice(token_ids=[1, 2, 3, 4], num_context_tokens=0, block_table=[9])])
    buffer = memoryview(bytearray(source.block_bytes))
    source.read_block(9, buffer)
    target.write_block(3, buffer)
    assert ask(target, [5], 4, [3, 2]) == whole
    buffer[4] ^= 1
    target.write_block(3, buffer)
    assert ask(target, [5], 4, [3, 2]) != whole


def test_answers_never_end_by_themselves() -> None:
    """End tokens and banned ones are never drawn: an emulated answer is as long as the workload says."""
    gpu = make_gpu(num_blocks=64)
    drawn = {ask(gpu, [a, b], 0, [0]).token_id for a in range(50) for b in range(50)}
    assert drawn == set(range(50)) - {3, 4}
    seeds = {ask(gpu, [1, 2], 0, [0], temperature=1.0, seed=seed).token_id for seed in range(100)}
    assert len(seeds) > 20


def test_steps_cost_what_the_model_says() -> None:
    """Prefill, decode and mixed steps are told apart; a lone first token is a prefill."""
    prefill = Slice(token_ids=[1] * 6, num_context_tokens=0, block_table=[0, 1])
    decode = Slice(token_ids=[1], num_context_tokens=6, block_table=[0, 1])
    one = Slice(token_ids=[1], num_context_tokens=0, block_table=[0])
    costs = LinearCosts()
    assert step_ns(costs, [prefill, one]) == 17 * MS
    assert step_ns(costs, [decode, decode]) == 7 * MS + 12_000
    assert step_ns(costs, [decode, prefill], host_step_ns=7) == 16 * MS + MS + 6_000 + 7


def test_a_late_wake_up_does_not_add_up() -> None:
    """100 decode steps, each woken 2 ms late, end 2 ms late in all and not 200."""
    clock = Clock(late_ns=2 * MS)
    gpu = make_gpu(clock, time_scale=10)
    gpu.step([Slice(token_ids=[1], num_context_tokens=0, block_table=[0])])
    ends = []
    for step in range(100):
        gpu.step([Slice(token_ids=[1], num_context_tokens=1 + step, block_table=list(range(32)))])
        ends.append(clock.now)
    first = 110 * MS
    expected = [first + 10 * LinearCosts().decode_run_ns(1, 1, n) + 2 * MS for n in range(1, 101)]
    assert ends == expected


def test_after_a_rest_a_step_begins_when_its_work_comes() -> None:
    """Idle time is not made up for."""
    clock = Clock()
    gpu = make_gpu(clock)
    gpu.step([Slice(token_ids=[1], num_context_tokens=0, block_table=[0])])
    gpu.pace.rest()
    clock.now += 500 * MS
    gpu.step([Slice(token_ids=[1], num_context_tokens=1, block_table=[0])])
    assert clock.now == 11 * MS + 500 * MS + 6 * MS + 1000


def test_a_stall_of_more_than_a_step_is_not_made_up_for() -> None:
    """Or a process that was stopped for a minute would then answer a minute's work in no time."""
    clock = Clock()
    gpu = make_gpu(clock)
    gpu.step([Slice(token_ids=[1], num_context_tokens=0, block_table=[0])])
    clock.now += 60_000 * MS
    gpu.step([Slice(token_ids=[1], num_context_tokens=1, block_table=[0])])
    stalled = clock.now
    gpu.step([Slice(token_ids=[1], num_context_tokens=2, block_table=[0])])
    assert clock.now - stalled == 6 * MS + 2000


def test_the_median_step_is_in_wall_time() -> None:
    clock = Clock()
    gpu = make_gpu(clock, time_scale=3)
    assert gpu.pace.median_s() == 0
    for tokens in (1, 1, 90):
        gpu.step([Slice(token_ids=[1] * tokens, num_context_tokens=0, block_table=list(range(64))[:30])])
    assert gpu.pace.median_s() == pytest.approx(0.033)
