"""The block ledger: what each move promises, one behaviour a test."""

from __future__ import annotations

import pytest

from brigade.core.errors import KVGone, OutOfBlocks
from brigade.core.ledger import BlockLedger

A, B, C, D = (bytes([i]) * 16 for i in range(4))


def cached(ledger: BlockLedger, *hashes: bytes) -> list[int]:
    """Blocks that hold the given hashes and that nobody references."""
    blocks = ledger.allocate(len(hashes))
    for block, block_hash in zip(blocks, hashes, strict=True):
        assert ledger.register(block, block_hash)
    ledger.release(blocks)
    return blocks


def test_generation_is_raised_and_shown_before_a_block_is_handed_out_again() -> None:
    """A reader of the old content must see the change before the first new byte can be written."""
    shown: list[tuple[int, int]] = []
    ledger = BlockLedger(2, 16, lambda block, generation: shown.append((block, generation)))
    first = ledger.allocate(2)
    ledger.release(first)
    assert shown == [(0, 1), (1, 1)]
    again = ledger.allocate(1)
    assert shown[2:] == [(again[0], 2)]
    assert ledger.generation(again[0]) == 2


def test_cached_prefix_keeps_its_generation() -> None:
    """A hit gives out the same content, so handles made before stay true."""
    ledger = BlockLedger(2, 16)
    (block,) = cached(ledger, A)
    before = ledger.generation(block)
    assert ledger.match([A]) == [block]
    assert ledger.generation(block) == before


def test_allocate_takes_nothing_when_there_is_no_room() -> None:
    """A caller that catches OutOfBlocks must find the ledger as it was."""
    ledger = BlockLedger(3, 16)
    held = ledger.allocate(2)
    assert not ledger.can_allocate(2)
    with pytest.raises(OutOfBlocks):
        ledger.allocate(2)
    assert ledger.num_free == 1
    ledger.release(held)
    assert ledger.is_idle


def test_promised_blocks_cannot_be_taken_by_allocation_or_by_cache_hits() -> None:
    """Admission promised prompt + max_tokens; a later prefix hit on an evictable block must not break that."""
    ledger = BlockLedger(3, 16)
    cached(ledger, A, B, C)
    promise = ledger.reserve(2)
    assert ledger.num_available == 1
    assert ledger.peek([A, B, C]) == 3
    hit = ledger.match([A, B, C])
    assert len(hit) == 1
    with pytest.raises(OutOfBlocks):
        ledger.allocate(1)
    with pytest.raises(OutOfBlocks):
        ledger.reserve(1)
    drawn = promise.draw(2)
    assert len({*hit, *drawn}) == 3
    ledger.check()


def test_admission_counts_a_shared_prefix_once_and_an_unused_one_as_room() -> None:
    """A prefix that somebody else holds costs nothing; one that nobody holds costs a block each."""
    ledger = BlockLedger(4, 16)
    cached(ledger, A, B)
    assert not ledger.can_admit(5, [A, B])
    assert ledger.can_admit(4, [A, B])
    prefix, promise = ledger.admit(4, [A, B])
    assert len(prefix) == 2
    assert promise.num_blocks == 2
    assert ledger.num_available == 0
    assert ledger.can_admit(2, [A, B])
    assert not ledger.can_admit(3, [A, B])
    with pytest.raises(OutOfBlocks):
        ledger.admit(3, [A, B])
    shared, nothing = ledger.admit(2, [A, B])
    assert shared == prefix
    assert nothing.num_blocks == 0
    for blocks in (prefix, shared):
        ledger.release(blocks)
    promise.cancel()
    promise.cancel()
    ledger.check()
    assert ledger.is_idle


def test_drawing_more_than_was_promised_is_a_bug() -> None:
    ledger = BlockLedger(4, 16)
    promise = ledger.reserve(1)
    with pytest.raises(AssertionError):
        promise.draw(2)
    promise.cancel()
    with pytest.raises(AssertionError):
        promise.draw(1)
    assert ledger.num_available == 4


def test_least_recently_released_is_evicted_first_and_tails_before_heads() -> None:
    """A chain without its head is useless, so the head must live longest."""
    ledger = BlockLedger(3, 16)
    cached(ledger, A, B)
    cached(ledger, C)
    ledger.release(ledger.match([A]))
    ledger.allocate(1)
    assert set(ledger.cached_hashes()) == {A, C}
    ledger.allocate(1)
    assert set(ledger.cached_hashes()) == {A}
    assert ledger.counts().num_evictions == 2
    ledger.check()


def test_second_block_of_the_same_content_stays_private() -> None:
    """Two requests that prefill the same prompt at once must not fight over the cache."""
    ledger = BlockLedger(2, 16)
    first, second = ledger.allocate(2)
    assert ledger.register(first, A)
    assert ledger.register(first, A)
    assert not ledger.register(second, A)
    ledger.release([first, second])
    counts = ledger.counts()
    assert (counts.num_free, counts.num_cached) == (1, 1)
    assert ledger.match([A]) == [first]


def test_loan_keeps_its_blocks_until_it_ends_and_ends_once() -> None:
    """A release message may come twice, or after the sweep: the second is an answer, not an error."""
    ledger = BlockLedger(2, 16)
    blocks = ledger.allocate(2)
    assert ledger.lend(("r", 1), blocks) == ((blocks[0], 1), (blocks[1], 1))
    assert ledger.num_lent == 2
    assert not ledger.can_allocate(1)
    assert not ledger.is_idle
    with pytest.raises(AssertionError):
        ledger.release(blocks)
    assert dict(ledger.loans()) == {("r", 1): tuple(blocks)}
    assert not ledger.end_loan(("r", 2))
    assert ledger.end_loan(("r", 1))
    assert not ledger.end_loan(("r", 1))
    assert ledger.num_lent == 0
    assert ledger.is_idle
    ledger.check()


def test_blocks_shared_by_two_loans_are_counted_once() -> None:
    """The in-flight bound is about blocks that cannot be used otherwise, not about handles."""
    ledger = BlockLedger(2, 16)
    blocks = ledger.allocate(1)
    ledger.retain(blocks)
    ledger.lend(("r/0", 1), blocks)
    ledger.lend(("r/1", 1), blocks)
    assert ledger.num_lent == 1
    ledger.end_loan(("r/0", 1))
    assert ledger.num_lent == 1
    assert ledger.num_free == 1
    ledger.end_loan(("r/1", 1))
    assert ledger.num_lent == 0
    assert ledger.is_idle


def test_local_job_takes_its_loan_over_without_freeing_anything() -> None:
    """A local release that freed the blocks would free what the request decodes on."""
    ledger = BlockLedger(2, 16)
    blocks = ledger.allocate(2)
    ledger.lend(("r", 1), blocks)
    assert ledger.take_over(("r", 1)) == blocks
    assert ledger.num_lent == 0
    assert ledger.num_free == 0
    assert not ledger.end_loan(("r", 1))
    with pytest.raises(KVGone):
        ledger.take_over(("r", 1))
    ledger.release(blocks)
    assert ledger.is_idle


def test_releasing_twice_is_a_bug() -> None:
    ledger = BlockLedger(2, 16)
    blocks = ledger.allocate(1)
    ledger.release(blocks)
    with pytest.raises(AssertionError):
        ledger.release(blocks)


def test_unknown_block_or_unheld_block_cannot_be_registered_lent_or_retained() -> None:
    ledger = BlockLedger(2, 16)
    with pytest.raises(AssertionError):
        ledger.register(0, A)
    with pytest.raises(AssertionError):
        ledger.lend(("r", 1), [0])
    with pytest.raises(AssertionError):
        ledger.retain([0])


def test_self_check_sees_a_lost_block() -> None:
    """The check is worth nothing if it cannot fail."""
    ledger = BlockLedger(2, 16)
    ledger.check()
    ledger._free.pop()
    with pytest.raises(AssertionError):
        ledger.check()


def test_blocks_for_tokens_rounds_up() -> None:
    ledger = BlockLedger(2, 16)
    assert [ledger.num_blocks_for(n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
