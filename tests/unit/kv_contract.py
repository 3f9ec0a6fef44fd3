"""What every KV transport must do: a transport passes by subclassing `KVTransportContract` and giving a lender.

The one promise behind all of it: a fetch that returns has delivered exactly what was lent. Everything else is KVGone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brigade.core.errors import KVGone
from brigade.core.kv import KVHandle
from brigade.kv.transport import KVTransport

NUM_BLOCKS = 16
BLOCK_BYTES = 4096


class Lender(Protocol):
    """A pool of NUM_BLOCKS blocks of BLOCK_BYTES bytes that the transport under test can read."""

    def write(self, block: int, data: bytes) -> None: ...

    def reuse(self, block: int) -> None:
        """Raise the block's generation, as the ledger does before it hands the block out again."""

    def handle(self, blocks: list[int]) -> KVHandle:
        """A handle on these blocks as they are now."""

    def vanish(self) -> None:
        """End the pool in good order."""


class KVTransportContract:
    """Subclasses override `lend_pool`, `transport` and `after_first_copy`."""

    @pytest.fixture
    def lend_pool(self) -> Callable[[], Lender]:
        raise NotImplementedError

    @pytest.fixture
    def transport(self) -> Iterator[KVTransport]:
        raise NotImplementedError

    @pytest.fixture
    def after_first_copy(self) -> Callable[[Callable[[], None]], None]:
        """Called with an action, which is to run once, after the first block of the next fetch has been copied."""
        raise NotImplementedError

    @pytest.fixture
    def lender(self, lend_pool: Callable[[], Lender]) -> Iterator[Lender]:
        lender = lend_pool()
        for block in range(NUM_BLOCKS):
            lender.reuse(block)
            lender.write(block, content(block))
        yield lender
        lender.vanish()

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), blocks=st.lists(st.integers(0, NUM_BLOCKS - 1), max_size=NUM_BLOCKS, unique=True))
    def test_any_choice_of_blocks_arrives_where_it_was_asked_for(
        self, lender: Lender, transport: KVTransport, data: st.DataObject, blocks: list[int]
    ) -> None:
        """Block lists are in any order, and a borrower that has a cached prefix fetches only the rest."""
        handle = lender.handle(blocks)
        indices = data.draw(st.lists(st.sampled_from(range(len(blocks))), unique=True)) if blocks else []
        pool = bytearray(BLOCK_BYTES * NUM_BLOCKS)
        into = [(index, block_of(pool, place)) for place, index in enumerate(indices)]
        transport.fetch(handle, into)
        for place, index in enumerate(indices):
            assert bytes(block_of(pool, place)) == content(blocks[index])
        assert not any(pool[len(indices) * BLOCK_BYTES :])

    def test_one_transport_reads_several_lenders(
        self, lender: Lender, lend_pool: Callable[[], Lender], transport: KVTransport
    ) -> None:
        other = lend_pool()
        other.reuse(3)
        other.write(3, b"\xee" * BLOCK_BYTES)
        assert fetch(transport, lender.handle([3])) == content(3)
        assert fetch(transport, other.handle([3])) == b"\xee" * BLOCK_BYTES
        other.vanish()
        assert fetch(transport, lender.handle([3])) == content(3)

    def test_block_reused_before_the_fetch_fails_it(self, lender: Lender, transport: KVTransport) -> None:
        handle = lender.handle([1, 2, 3])
        lender.reuse(3)
        with pytest.raises(KVGone):
            fetch(transport, handle)

    def test_reuse_of_a_block_that_is_not_fetched_does_not_matter(self, lender: Lender, transport: KVTransport) -> None:
        handle = lender.handle([1, 2])
        lender.reuse(2)
        pool = bytearray(BLOCK_BYTES)
        transport.fetch(handle, [(0, memoryview(pool))])
        assert pool == content(1)

    @pytest.mark.parametrize("victim", [1, 4])
    def test_block_reused_during_the_copy_fails_the_fetch(
        self,
        lender: Lender,
        transport: KVTransport,
        after_first_copy: Callable[[Callable[[], None]], None],
        victim: int,
    ) -> None:
        """Both for a block that was copied already and for one that is still to come: garbage must never be silent."""
        handle = lender.handle([1, 2, 3, 4])
        seen = []

        def reuse() -> None:
            lender.reuse(victim)
            lender.write(victim, b"\xff" * BLOCK_BYTES)
            seen.append(victim)

        after_first_copy(reuse)
        with pytest.raises(KVGone):
            fetch(transport, handle)
        assert seen == [victim]

    def test_a_lender_that_rewrites_all_the_time_is_never_read_wrongly(
        self, lender: Lender, transport: KVTransport
    ) -> None:
        """Each round re-uses the block in the ledger's order: generation, then bytes, then a new handle."""
        handles = [lender.handle([0])]
        expected = {handles[0].blocks: content(0)}

        def rewrite() -> None:
            for round_number in range(1000):
                lender.reuse(0)
                data = bytes([round_number % 251]) * BLOCK_BYTES
                lender.write(0, data)
                handle = lender.handle([0])
                expected[handle.blocks] = data
                handles.append(handle)

        writer = threading.Thread(target=rewrite)
        switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # so that rewrites fall into the middle of fetches
        writer.start()
        try:
            while writer.is_alive():
                handle = handles[-1]
                try:
                    assert fetch(transport, handle) == expected[handle.blocks]
                except KVGone:
                    continue
        finally:
            writer.join()
            sys.setswitchinterval(switch_interval_s)
        assert fetch(transport, handles[-1]) == expected[handles[-1].blocks]

    def test_handle_of_an_earlier_incarnation_fails(self, lender: Lender, transport: KVTransport) -> None:
        """A worker that came back has other bytes under the same block numbers, perhaps with equal generations."""
        handle = replace(lender.handle([1]), incarnation="0123456789abcdef")
        with pytest.raises(KVGone):
            fetch(transport, handle)
        assert fetch(transport, lender.handle([1])) == content(1)
        with pytest.raises(KVGone):
            fetch(transport, handle)

    def test_lender_that_never_was_fails(self, lender: Lender, transport: KVTransport) -> None:
        with pytest.raises(KVGone):
            fetch(transport, replace(lender.handle([1]), location="/nowhere/brigade-x-w-0.kv"))

    @pytest.mark.parametrize("was_read_before", [False, True])
    def test_lender_that_has_left_fails(self, lender: Lender, transport: KVTransport, *, was_read_before: bool) -> None:
        handle = lender.handle([1])
        if was_read_before:
            fetch(transport, handle)
        lender.vanish()
        with pytest.raises(KVGone):
            fetch(transport, handle)

    def test_handle_of_another_transport_fails(self, lender: Lender, transport: KVTransport) -> None:
        with pytest.raises(KVGone):
            fetch(transport, replace(lender.handle([1]), transport="pigeon"))

    @pytest.mark.parametrize("block", [-1, NUM_BLOCKS, 2**40])
    def test_block_outside_of_the_pool_fails(self, lender: Lender, transport: KVTransport, block: int) -> None:
        """A handle is bytes from the bus: a wrong number must not read somebody else's memory."""
        with pytest.raises(KVGone):
            fetch(transport, replace(lender.handle([1]), blocks=((block, 1),)))

    def test_other_block_size_fails(self, lender: Lender, transport: KVTransport) -> None:
        with pytest.raises(KVGone):
            fetch(transport, replace(lender.handle([1]), block_bytes=BLOCK_BYTES // 2))

    def test_destination_of_another_size_is_a_bug(self, lender: Lender, transport: KVTransport) -> None:
        """It must neither write beyond the destination nor leave a part of it as it was."""
        with pytest.raises(ValueError):
            transport.fetch(lender.handle([1]), [(0, memoryview(bytearray(BLOCK_BYTES + 1)))])
        with pytest.raises(ValueError):
            transport.fetch(lender.handle([1]), [(0, memoryview(bytearray(1)))])

    def test_closing_twice_is_harmless(self, transport: KVTransport) -> None:
        transport.close()
        transport.close()


def content(block: int) -> bytes:
    """Bytes that differ between blocks and within a block."""
    return bytes((block * 17 + i // 7) % 256 for i in range(BLOCK_BYTES))


def block_of(pool: bytearray, place: int) -> memoryview:
    return memoryview(pool)[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]


def fetch(transport: KVTransport, handle: KVHandle) -> bytes:
    """All blocks of a handle, one after the other."""
    pool = bytearray(len(handle.blocks) * handle.block_bytes)
    size = handle.block_bytes
    transport.fetch(handle, [(i, memoryview(pool)[i * size : (i + 1) * size]) for i in range(len(handle.blocks))])
    return bytes(pool)
