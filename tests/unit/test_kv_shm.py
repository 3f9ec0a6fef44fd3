"""The shared-memory transport: the contract, and what only files, locks and killed processes can do."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kv_contract import BLOCK_BYTES, NUM_BLOCKS, KVTransportContract, Lender, content, fetch

from brigade.core.errors import KVGone
from brigade.core.kv import KVHandle
from brigade.kv import open_transport
from brigade.kv.arena import Arena, sweep
from brigade.kv.shm import SharedMemoryTransport, _MappedArena
from brigade.kv.transport import KVTransport


def handle_on(arena_location: str, incarnation: str, blocks: tuple[tuple[int, int], ...]) -> KVHandle:
    return KVHandle(
        transport="shm",
        location=arena_location,
        incarnation=incarnation,
        worker_id="w",
        blocks=blocks,
        num_tokens=16 * len(blocks),
        block_size_tokens=16,
        block_bytes=BLOCK_BYTES,
        dtype="float32",
        layout="plain",
        model_revision="m",
    )


class ArenaLender:
    """An arena in this process."""

    def __init__(self, directory: Path) -> None:
        self.arena = Arena(
            directory=str(directory), installation="t", worker_id="w", num_blocks=NUM_BLOCKS, block_bytes=BLOCK_BYTES
        )

    def write(self, block: int, data: bytes) -> None:
        self.arena.block(block)[:] = data

    def reuse(self, block: int) -> None:
        self.arena.raise_generation(block, self.arena.generation(block) + 1)

    def handle(self, blocks: list[int]) -> KVHandle:
        lent = tuple((block, self.arena.generation(block)) for block in blocks)
        return handle_on(self.arena.location, self.arena.incarnation, lent)

    def vanish(self) -> None:
        self.arena.close()


@pytest.fixture
def transport() -> Iterator[KVTransport]:
    transport = open_transport("shm")
    yield transport
    transport.close()


class TestSharedMemoryTransport(KVTransportContract):
    @pytest.fixture
    def lend_pool(self, tmp_path: Path) -> Callable[[], Lender]:
        return lambda: ArenaLender(tmp_path)

    @pytest.fixture
    def transport(self) -> Iterator[KVTransport]:
        transport = open_transport("shm")
        yield transport
        transport.close()

    @pytest.fixture
    def after_first_copy(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
        copy = _MappedArena.copy

        def arrange(action: Callable[[], None]) -> None:
            actions = [action]

            def copy_then_act(arena: _MappedArena, block: int, destination: memoryview) -> None:
                copy(arena, block, destination)
                if actions:
                    actions.pop()()

            monkeypatch.setattr(_MappedArena, "copy", copy_then_act)

        return arrange


LENDER_PROGRAM = """
import sys
from brigade.kv.arena import Arena
directory, num_blocks, block_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
arena = Arena(directory=directory, installation="t", worker_id="child", num_blocks=num_blocks, block_bytes=block_bytes)
for block in range(num_blocks):
    arena.raise_generation(block, 7)
    arena.block(block)[:] = sys.stdin.buffer.read(block_bytes)
print(arena.location, arena.incarnation, flush=True)
sys.stdin.buffer.read()
if sys.argv[4] == "close":
    arena.close()
"""


class ChildLender:
    """A lender in another process, to be killed."""

    def __init__(self, directory: Path, *, at_end: str = "hold") -> None:
        command = [sys.executable, "-c", LENDER_PROGRAM, str(directory), str(NUM_BLOCKS), str(BLOCK_BYTES), at_end]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018 - for the type checker
        for block in range(NUM_BLOCKS):
            self.process.stdin.write(content(block))
        self.process.stdin.flush()
        self.location, self.incarnation = self.process.stdout.readline().decode().split()

    def handle(self, blocks: list[int]) -> KVHandle:
        return handle_on(self.location, self.incarnation, tuple((block, 7) for block in blocks))

    def end(self, *, by_signal: bool) -> None:
        if by_signal:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=30)


@pytest.mark.parametrize("was_read_before", [False, True])
def test_pull_succeeds_after_the_lender_was_killed_until_its_file_is_swept(
    tmp_path: Path, transport: KVTransport, *, was_read_before: bool
) -> None:
    """kill -9 between hand-over and pull costs nothing on the same host; afterwards the owner starts a new attempt."""
    lender = ChildLender(tmp_path)
    handle = lender.handle([5, 3, 9])
    expected = content(5) + content(3) + content(9)
    if was_read_before:
        assert fetch(transport, handle) == expected
    assert sweep(str(tmp_path), "t") == []
    lender.end(by_signal=True)
    assert fetch(transport, handle) == expected
    assert sweep(str(tmp_path), "t") == [lender.location]
    assert os.listdir(tmp_path) == []
    with pytest.raises(KVGone):
        fetch(transport, handle)


def test_lender_in_another_process_that_closes_leaves_no_file(tmp_path: Path, transport: KVTransport) -> None:
    lender = ChildLender(tmp_path, at_end="close")
    assert fetch(transport, lender.handle([1])) == content(1)
    lender.end(by_signal=False)
    assert os.listdir(tmp_path) == []


def test_exit_of_a_reader_leaves_the_lender_alone(tmp_path: Path) -> None:
    """The fault of multiprocessing.shared_memory: whoever leaves first takes the segment away from the other."""
    lender = ArenaLender(tmp_path)
    lender.write(2, content(2))
    handle = lender.handle([2])
    program = (
        "import sys; from brigade.kv import open_transport; from brigade.core.kv import KVHandle\n"
        f"handle = {handle!r}\n"
        "into = memoryview(bytearray(handle.block_bytes)); open_transport('shm').fetch(handle, [(0, into)])\n"
        "sys.stdout.buffer.write(into)"
    )
    read = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    assert read == content(2)
    assert os.path.exists(handle.location)
    lender.vanish()


def test_memory_of_a_dead_pool_is_let_go(tmp_path: Path) -> None:
    """A mapping of an unlinked tmpfs file keeps all its memory: the next worker's pool would not fit."""
    transport = SharedMemoryTransport()
    lender = ArenaLender(tmp_path)
    location = lender.arena.location
    fetch(transport, lender.handle([1]))
    lender.vanish()
    del lender
    assert location in Path("/proc/self/maps").read_text()
    transport.prune()
    gc.collect()
    assert location not in Path("/proc/self/maps").read_text()


def test_file_that_is_no_pool_or_is_cut_short_fails(tmp_path: Path, transport: KVTransport) -> None:
    """Touching a mapping beyond the end of its file is a SIGBUS, so it must be seen before."""
    lender = ArenaLender(tmp_path)
    good = Path(lender.arena.location).read_bytes()
    for name, data in (("empty", b""), ("text", b"x" * len(good)), ("short", good[:-1])):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(KVGone):
            fetch(transport, handle_on(str(path), lender.arena.incarnation, ((1, 0),)))
    with pytest.raises(KVGone):
        fetch(transport, handle_on(str(tmp_path), lender.arena.incarnation, ((1, 0),)))
    lender.vanish()


def test_unknown_transport_is_refused() -> None:
    with pytest.raises(KVGone, match="pigeon"):
        open_transport("pigeon")
