"""The arena file: full directories, names, locks and sweeps."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brigade.core.errors import ConfigError, KVGone
from brigade.core.kv import KVHandle
from brigade.core.ledger import BlockLedger
from brigade.kv import arena as arena_module
from brigade.kv.arena import Arena, sweep
from brigade.kv.transport import check_compatible


def make(directory: Path, *, installation: str = "t", num_blocks: int = 4, block_bytes: int = 1000) -> Arena:
    return Arena(
        directory=str(directory),
        installation=installation,
        worker_id="w-1",
        num_blocks=num_blocks,
        block_bytes=block_bytes,
    )


@pytest.fixture
def tiny_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    target = tmp_path / "tiny"
    target.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(target)], check=False)
    if mount.returncode:
        pytest.skip("mounting needs root")
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_pool_that_does_not_fit_is_one_clear_sentence_and_no_file(tiny_tmpfs: Path) -> None:
    """Without allocation up front the same pool is a SIGBUS in the middle of somebody's answer."""
    with pytest.raises(ConfigError, match=r"a KV pool of 2 MiB does not fit into .*tiny: No space left"):
        make(tiny_tmpfs, num_blocks=2, block_bytes=2**20)
    assert os.listdir(tiny_tmpfs) == []
    make(tiny_tmpfs, num_blocks=2, block_bytes=2**18).close()


def test_failed_allocation_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        make(tmp_path)
    assert os.listdir(tmp_path) == []


def test_missing_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        make(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        sweep(str(tmp_path / "nowhere"), "t")


@pytest.mark.parametrize("name", ["", "a/b", "..\n", "a b", "x" * 65])
def test_name_that_would_leave_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        make(tmp_path, installation=name)


def test_blocks_are_page_aligned_back_to_back_and_zero(tmp_path: Path) -> None:
    with make(tmp_path, num_blocks=600) as arena:
        assert len(arena.data) == 600 * 1000
        assert not any(arena.data)
        arena.block(1)[:] = b"\x01" * 1000
        assert bytes(arena.data[999:1001]) == b"\x00\x01"
        assert bytes(arena.data[1999:2001]) == b"\x01\x00"
        assert (os.path.getsize(arena.location) - len(arena.data)) % mmap.PAGESIZE == 0


def test_ledger_shows_its_generations_in_the_header(tmp_path: Path) -> None:
    with make(tmp_path) as arena:
        ledger = BlockLedger(4, 16, arena.raise_generation)
        ledger.release(ledger.allocate(4))
        (block,) = ledger.allocate(1)
        assert [arena.generation(b) for b in range(4)] == [ledger.generation(b) for b in range(4)]
        assert arena.generation(block) == 2


def test_two_arenas_of_one_worker_have_two_names(tmp_path: Path) -> None:
    """A name is never used twice, so a handle into an earlier life cannot find a later one."""
    with make(tmp_path) as first, make(tmp_path) as second:
        assert first.location != second.location
        assert first.incarnation != second.incarnation
    assert os.listdir(tmp_path) == []


def test_memory_stays_valid_for_views_made_before_closing(tmp_path: Path) -> None:
    """The engine's tensors may outlive the arena by a moment; that must not be a crash."""
    arena = make(tmp_path)
    view = arena.block(2)
    arena.close()
    arena.close()
    view[:] = b"z" * 1000
    assert bytes(view[:3]) == b"zzz"


def test_sweep_takes_only_what_nobody_holds(tmp_path: Path) -> None:
    alive = make(tmp_path)
    dead = make(tmp_path)
    fcntl.flock(dead._fd, fcntl.LOCK_UN)  # as the kernel does for a process that has died
    (tmp_path / "brigade-t-notes.txt").write_text("not a pool")
    assert sweep(str(tmp_path), "t") == [dead.location]
    assert os.path.exists(alive.location)
    assert sweep(str(tmp_path), "t") == []
    alive.close()
    dead.close()
    assert os.listdir(tmp_path) == ["brigade-t-notes.txt"]


def test_sweep_leaves_other_installations_alone_even_when_names_begin_alike(tmp_path: Path) -> None:
    """What the dead worker of another installation has lent may still be pulled."""
    dead = make(tmp_path, installation="t-2")
    fcntl.flock(dead._fd, fcntl.LOCK_UN)
    assert sweep(str(tmp_path), "t") == []
    assert sweep(str(tmp_path), "t-2") == [dead.location]
    dead.close()


def test_sweep_removes_what_a_creator_left_before_its_header(tmp_path: Path) -> None:
    path = tmp_path / "brigade-t-w-0123456789abcdef.kv"
    path.write_bytes(b"")
    assert sweep(str(tmp_path), "t") == [str(path)]


@pytest.mark.parametrize("holds_on", [False, True])
def test_sweep_between_creating_and_locking_does_not_take_the_arena_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, holds_on: bool
) -> None:
    """The sweeper is at its worst: it sees the new name before the lock, and is still holding it, or done already."""
    try_lock = arena_module._try_lock
    sweepers: list[int] = []

    def sweep_first(fd: int) -> bool:
        if not sweepers:
            (name,) = os.listdir(tmp_path)
            sweeper = os.open(tmp_path / name, os.O_RDWR)
            sweepers.append(sweeper)
            fcntl.flock(sweeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(tmp_path / name)
            if not holds_on:
                fcntl.flock(sweeper, fcntl.LOCK_UN)
        return try_lock(fd)

    monkeypatch.setattr(arena_module, "_try_lock", sweep_first)
    with make(tmp_path) as arena:
        assert len(sweepers) == 1
        assert os.path.exists(arena.location)
        monkeypatch.undo()
        assert sweep(str(tmp_path), "t") == []
    os.close(sweepers[0])


def test_incompatible_handle_names_the_difference() -> None:
    """KV of another layout would be read as numbers all the same."""
    handle = KVHandle(
        transport="shm",
        location="/x",
        incarnation="i",
        worker_id="w",
        blocks=((0, 1), (1, 1)),
        num_tokens=20,
        block_size_tokens=16,
        block_bytes=64,
        dtype="bfloat16",
        layout="a",
        model_revision="m",
    )
    ours: dict[str, Any] = {
        "block_size_tokens": 16,
        "block_bytes": 64,
        "dtype": "bfloat16",
        "layout": "a",
        "model_revision": "m",
    }
    check_compatible(handle, **ours)
    assert handle.num_bytes == 128
    for name, value in (
        ("block_size_tokens", 32),
        ("block_bytes", 128),
        ("dtype", "float32"),
        ("layout", "b"),
        ("model_revision", "m2"),
    ):
        with pytest.raises(KVGone, match=f"'?{value}'?$"):
            check_compatible(handle, **{**ours, name: value})
    with pytest.raises(KVGone, match="33 tokens"):
        check_compatible(replace(handle, num_tokens=33), **ours)
