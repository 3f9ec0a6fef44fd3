"""A KV pool in shared memory: one file that its owner locks for life and that readers map by path.

    0          magic, version, sizes, incarnation, installation   (never changes after creation)
    256        generation of each block, 8 bytes each, native order  (one aligned store raises one)
    data_…     blocks, page-aligned, back to back

The file is allocated in full at creation: a full tmpfs is then an error here and not a SIGBUS in the middle of a step.
Its name carries a nonce and is never used again. Who holds it is said by flock, which the kernel drops when the owner
dies, however it dies; the bytes stay readable until somebody sweeps. Not `multiprocessing.shared_memory`: there the
exit of a reader can unlink the owner's segment.

Ordering: the owner raises a generation before it writes new bytes, a reader copies before it reads the generation.
Both run as separate calls of the interpreter; on x86 that order is the order that others see.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import secrets
import struct
from dataclasses import dataclass
from types import TracebackType

from brigade.core.errors import ConfigError, KVGone

DEFAULT_DIRECTORY = "/dev/shm"
SUFFIX = ".kv"

_MAGIC = b"BRIGADEK"
_VERSION = 1
_HEADER = struct.Struct(
    "<8sIIQQQ32s64s"
)  # magic, version, unused, blocks, block bytes, data offset, nonce, installation
_GENERATIONS_OFFSET = 256
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaHeader:
    """What the file says about itself."""

    num_blocks: int
    block_bytes: int
    data_offset: int
    incarnation: str
    installation: str

    @property
    def file_bytes(self) -> int:
        return self.data_offset + self.num_blocks * self.block_bytes

    def pack(self) -> bytes:
        names = self.incarnation.encode(), self.installation.encode()
        return _HEADER.pack(_MAGIC, _VERSION, 0, self.num_blocks, self.block_bytes, self.data_offset, *names)


class Arena:
    """The owner's side of a pool of `num_blocks` blocks of `block_bytes` bytes.

    `data` is the writable memory of all blocks, block i at [i * block_bytes, (i + 1) * block_bytes). `location` and
    `incarnation` go into handles. ConfigError when the pool does not fit into `directory` or a name cannot be used.
    """

    def __init__(
        self,
        *,
        directory: str = DEFAULT_DIRECTORY,
        installation: str,
        worker_id: str,
        num_blocks: int,
        block_bytes: int,
    ) -> None:
        for name in (installation, worker_id):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} cannot be part of a KV pool's file name: 1 to 64 of A-Z a-z 0-9 _ . -")
        data_offset = _round_up(_GENERATIONS_OFFSET + 8 * num_blocks, mmap.PAGESIZE)
        self.location, self.incarnation, self._fd = _create_locked(directory, f"brigade-{installation}-{worker_id}-")
        self.num_blocks = num_blocks
        self.block_bytes = block_bytes
        header = ArenaHeader(
            num_blocks=num_blocks,
            block_bytes=block_bytes,
            data_offset=data_offset,
            incarnation=self.incarnation,
            installation=installation,
        )
        try:
            _allocate(self._fd, header.file_bytes, directory)
            # Populated now, so that no step pays for the first touch of a page.
            mapping = mmap.mmap(self._fd, header.file_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            self._remove()
            raise
        mapping[: _HEADER.size] = header.pack()
        view = memoryview(mapping)
        self._generations = view[_GENERATIONS_OFFSET : _GENERATIONS_OFFSET + 8 * num_blocks].cast("Q")
        self.data = view[data_offset:]

    def block(self, block: int) -> memoryview:
        """The bytes of one block."""
        start = block * self.block_bytes
        return self.data[start : start + self.block_bytes]

    def raise_generation(self, block: int, generation: int) -> None:
        """Tell readers that a block is about to hold something else. The callback of the pool's `BlockLedger`."""
        self._generations[block] = generation

    def generation(self, block: int) -> int:
        return self._generations[block]

    def close(self) -> None:
        """Remove the file and let go of the lock; pulls that have not begun will fail. Doing it twice is harmless.

        The memory itself goes when the last view of `data` does, so tensors made on it stay valid.
        """
        if self._fd >= 0:
            self._remove()
            self.data = self._generations = memoryview(b"")

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody has tidied up by hand
            os.unlink(self.location)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_header(fd: int) -> ArenaHeader:
    """The header of an open arena file; KVGone when it is none, of another version, or shorter than it says."""
    raw = os.pread(fd, _HEADER.size, 0)
    if len(raw) < _HEADER.size:
        raise KVGone("the file is too short for a KV pool")
    magic, version, _, num_blocks, block_bytes, data_offset, incarnation, installation = _HEADER.unpack(raw)
    if (magic, version) != (_MAGIC, _VERSION):
        raise KVGone("the file is not a KV pool of this version")
    header = ArenaHeader(
        num_blocks=num_blocks,
        block_bytes=block_bytes,
        data_offset=data_offset,
        incarnation=incarnation.rstrip(b"\0").decode(errors="replace"),
        installation=installation.rstrip(b"\0").decode(errors="replace"),
    )
    if os.fstat(fd).st_size < header.file_bytes:
        raise KVGone("the file is shorter than its header says")
    return header


def generations_of(mapping: mmap.mmap, header: ArenaHeader) -> memoryview:
    """The generations in a mapping of a whole arena file, as unsigned 64-bit integers."""
    return memoryview(mapping)[_GENERATIONS_OFFSET : _GENERATIONS_OFFSET + 8 * header.num_blocks].cast("Q")


def sweep(directory: str, installation: str) -> list[str]:
    """Delete the installation's arenas that no living process holds; returns their paths.

    What a killed worker has lent can be pulled until then, so sweep some seconds after its death, not at once.
    """
    try:
        entries = sorted(os.listdir(directory))
    except OSError as error:
        raise ConfigError(f"the directory {directory} for KV pools cannot be read: {error.strerror}") from error
    swept = []
    for entry in entries:
        if not (entry.startswith(f"brigade-{installation}-") and entry.endswith(SUFFIX)):
            continue
        path = os.path.join(directory, entry)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, PermissionError):
            continue  # another sweep or its owner was faster; or it is another user's
        try:
            if _belongs_to(fd, installation) and _try_lock(fd):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                    swept.append(path)
        finally:
            os.close(fd)
    return swept


def _belongs_to(fd: int, installation: str) -> bool:
    """False for an arena of installation "a-b" when "a" is asked for. A file without a header was lent to nobody."""
    try:
        return read_header(fd).installation == installation
    except KVGone:
        return True


def _create_locked(directory: str, prefix: str) -> tuple[str, str, int]:
    """A new empty file that we hold: (path, nonce, fd).

    A sweep can see the file before we have locked it, and remove it; having the lock and still being linked means that
    no sweep ever will. Otherwise we begin again under another name.
    """
    while True:
        nonce = secrets.token_hex(8)
        path = os.path.join(directory, f"{prefix}{nonce}{SUFFIX}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"no KV pool can be made in {directory}: {error.strerror}") from error
        if _try_lock(fd) and os.fstat(fd).st_nlink:
            return path, nonce, fd
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _allocate(fd: int, num_bytes: int, directory: str) -> None:
    try:
        os.posix_fallocate(fd, 0, num_bytes)
    except OSError as error:
        raise ConfigError(
            f"a KV pool of {num_bytes / 2**20:.0f} MiB does not fit into {directory}: {error.strerror}; "
            "make the pool smaller or the file system larger"
        ) from error


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
