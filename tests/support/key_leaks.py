"""Which keys of installations may be left behind when a test has ended."""

from __future__ import annotations

import redis

from brigade.bus.keys import Keys

_OF_WORKERS = ("decode:", "control:", "role:")
_OF_ROUTERS = ("tokens:", "owned:")


def leaked_keys(client: redis.Redis) -> list[str]:
    """Return keys of any installation that would stay for ever: no TTL, and not permanent by `Keys.is_permanent`, or kept
    for a process that has left the registry. One sentence per key."""
    leaks = []
    for raw in sorted(client.scan_iter(match="*", count=1000)):
        key = raw.decode()
        if not key.startswith("{brigade:"):
            leaks.append(f"{key}: outside of any installation")
            continue
        keys = Keys(key.removeprefix("{brigade:").partition("}")[0])
        name = key.removeprefix(keys.prefix)
        if client.pttl(key) != -1:
            continue  # it has a TTL (or ended while we looked)
        if not keys.is_permanent(key):
            state = client.hget(key, "state") if name.startswith("req:") else None
            leaks.append(f"{key}: no TTL" + (f" (state {state.decode()})" if state else ""))
            continue
        for prefixes, registry in ((_OF_WORKERS, keys.workers), (_OF_ROUTERS, keys.routers)):
            prefix = next((p for p in prefixes if name.startswith(p)), None)
            if prefix and not client.sismember(registry, name.removeprefix(prefix)):
                leaks.append(f"{key}: its process has left the registry")
    return leaks
