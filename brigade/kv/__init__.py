"""KV pools that other workers can read, and the transports that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from brigade.core.errors import KVGone
from brigade.kv.shm import SharedMemoryTransport
from brigade.kv.transport import KVTransport, check_compatible

__all__ = ["TRANSPORTS", "KVTransport", "check_compatible", "open_transport"]

TRANSPORTS: Mapping[str, Callable[[], KVTransport]] = MappingProxyType({"shm": SharedMemoryTransport})


def open_transport(name: str) -> KVTransport:
    """A reader for handles whose `transport` is `name`; KVGone when this worker has none of that name."""
    try:
        return TRANSPORTS[name]()
    except KeyError:
        raise KVGone(f"this worker has no KV transport {name!r}, only {', '.join(TRANSPORTS)}") from None
