"""Makes any KV transport take the time of a cost model, for emulated workers: the reader waits as a real one would."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brigade.core.kv import KVHandle
from brigade.kv.transport import KVTransport


class PacedTransport:
    """Implements `KVTransport`. `wait(begun_ns, num_tokens)` returns when bringing so many tokens here ends; `now_ns` is its
    clock. Generations are checked before the wait, which a real transfer would do after it: the loan stands meanwhile."""

    def __init__(self, inner: KVTransport, *, now_ns: Callable[[], int], wait: Callable[[int, int], object]) -> None:
        self._inner = inner
        self._now_ns = now_ns
        self._wait = wait

    def fetch(self, handle: KVHandle, into: Sequence[tuple[int, memoryview]]) -> None:
        """See `KVTransport.fetch`."""
        begun_ns = self._now_ns()
        self._inner.fetch(handle, into)
        size = handle.block_size_tokens
        self._wait(begun_ns, sum(max(0, min(size, handle.num_tokens - index * size)) for index, _ in into))

    def prune(self) -> None:
        self._inner.prune()

    def close(self) -> None:
        self._inner.close()
