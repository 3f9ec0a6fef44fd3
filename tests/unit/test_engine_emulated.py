"""The emulated engine must fail where a real one would answer wrongly."""

from __future__ import annotations

from brigade.core.sampling import SamplingParams
from brigade.core.step import Sampled, SampleRequest, Slice
from brigade.engine.emulated import EmulatedEngine

GREEDY = SamplingParams(temperature=0.0)


def ask(engine: EmulatedEngine, tokens: list[int], num_context: int, table: list[int], **params: object) -> Sampled:
    sample = SampleRequest(params=SamplingParams(**params) if params else GREEDY, index=0)  # type: ignore[arg-type]
    [sampled] = engine.step([Slice(token_ids=tokens, num_context_tokens=num_context, block_table=table, sample=sample)])
    assert sampled is not None
    return sampled


def test_chunks_and_blocks_do_not_matter() -> None:
    """The same tokens give the same answer however they are cut and wherever they lie."""
    engine = EmulatedEngine(num_blocks=8, block_size_tokens=4)
    whole = ask(engine, [1, 2, 3, 4, 5, 6], 0, [0, 1])
    engine.step([Slice(token_ids=[1, 2, 3], num_context_tokens=0, block_table=[7, 3])])
    assert ask(engine, [4, 5, 6], 3, [7, 3]) == whole


def test_a_garbled_or_missing_block_changes_the_answer() -> None:
    """Or the tests around it would not notice wrong KV."""
    engine = EmulatedEngine(num_blocks=8, block_size_tokens=4)
    whole = ask(engine, [1, 2, 3, 4, 5], 0, [0, 1])
    assert ask(engine, [5], 4, [2, 1]) != whole
    engine.write_block(0, memoryview(b"x" * engine.block_bytes))
    assert ask(engine, [5], 4, [0, 1]) != whole


def test_a_copied_block_is_as_good_as_the_original() -> None:
    source, target = (
        EmulatedEngine(num_blocks=4, block_size_tokens=4),
        EmulatedEngine(num_blocks=4, block_size_tokens=4),
    )
    whole = ask(source, [1, 2, 3, 4, 5], 0, [0, 1])
    buffer = memoryview(bytearray(source.block_bytes))
    source.read_block(0, buffer)
    target.write_block(3, buffer)
    assert ask(target, [5], 4, [3, 2]) == whole


def test_draws_depend_on_the_seed_unless_greedy() -> None:
    engine = EmulatedEngine(num_blocks=4, block_size_tokens=4)
    draws = {ask(engine, [1, 2], 0, [0], temperature=1.0, seed=seed).token_id for seed in range(20)}
    assert len(draws) > 15
