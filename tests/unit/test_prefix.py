"""Block hashes: equal exactly when model, salt and all tokens so far are equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brigade.core.prefix import HASH_BYTES, block_hashes, next_hash, root_hash

tokens = st.lists(st.integers(0, 2**31 - 1), max_size=40)


@given(token_ids=tokens, block_size_tokens=st.integers(1, 9))
def test_only_full_blocks_have_a_hash(token_ids: list[int], block_size_tokens: int) -> None:
    hashes = block_hashes(token_ids, block_size_tokens, revision="m")
    assert len(hashes) == len(token_ids) // block_size_tokens
    assert all(len(block_hash) == HASH_BYTES for block_hash in hashes)


@given(token_ids=tokens, other=tokens, block_size_tokens=st.integers(1, 9))
def test_hashes_agree_exactly_as_far_as_the_tokens_do(
    token_ids: list[int], other: list[int], block_size_tokens: int
) -> None:
    """A hit on block i must mean that blocks 0..i are all the same."""
    mine = block_hashes(token_ids, block_size_tokens, revision="m")
    theirs = block_hashes(other, block_size_tokens, revision="m")
    for index, (a, b) in enumerate(zip(mine, theirs, strict=False)):
        end = (index + 1) * block_size_tokens
        assert (a == b) == (token_ids[:end] == other[:end])


@given(token_ids=tokens, block_size_tokens=st.integers(1, 9))
def test_block_by_block_gives_the_same_chain(token_ids: list[int], block_size_tokens: int) -> None:
    """Decode registers blocks as they fill; its hashes must be found by a later prompt."""
    parent, chain = root_hash("m", b"s"), []
    for start in range(0, len(token_ids) - block_size_tokens + 1, block_size_tokens):
        parent = next_hash(parent, token_ids[start : start + block_size_tokens])
        chain.append(parent)
    assert chain == block_hashes(token_ids, block_size_tokens, revision="m", salt=b"s")


@pytest.mark.parametrize(("revision", "salt"), [("m2", b""), ("m", b"tenant"), ("mt", b"enant")])
def test_revision_and_salt_separate_caches(revision: str, salt: bytes) -> None:
    base = block_hashes(range(4), 2, revision="m", salt=b"tenan")
    assert not set(base) & set(block_hashes(range(4), 2, revision=revision, salt=salt))


def test_hash_is_the_same_on_every_machine() -> None:
    """Hashes cross process and host borders, so a change of their definition must be noticed."""
    (block_hash,) = block_hashes([1, 2, 3, 2**31 - 1], 4, revision="model", salt=b"x")
    assert block_hash.hex() == "0a73492463b5f0c723ec567fc3964db3"
