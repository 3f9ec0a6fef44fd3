"""The whole state of an installation, without what differs between two runs of the same calls (ids of entries, times)."""

from __future__ import annotations

from typing import Any

from brigade.bus.client import Bus, entries_in


async def snapshot(bus: Bus) -> dict[str, Any]:
    """Return every key with its value, entry ids replaced by their place in their stream, stamps left out, and whether the
    key has a TTL; for a stream also who holds which entries."""
    names = sorted(key.decode() for key in await bus.command("KEYS", bus.keys.prefix.replace("{", "\\{") + "*"))
    places: dict[tuple[str, str], str] = {}  # by stream and entry id: two streams may have one id
    found: dict[str, Any] = {}
    for name in names:
        short = name.removeprefix(bus.keys.prefix)
        kind = (await bus.command("TYPE", name)).decode()
        if kind == "stream":
            entries = entries_in(await bus.command("XRANGE", name, "-", "+"))
            for place, (entry_id, _) in enumerate(entries):
                places[short, entry_id] = f"{short}#{place}"
            for _, fields in entries:
                if b"source" in fields:  # a dead letter names the key and the entry that it was
                    fields[b"source"] = fields[b"source"].removeprefix(bus.keys.prefix.encode()).split()[0]
            found[short] = ([fields for _, fields in entries], await _holders(bus, name))
        elif kind == "hash":
            flat = await bus.command("HGETALL", name)
            found[short] = {k.decode(): v for k, v in flat.items() if not k.startswith(b"t_")}
        elif kind == "set":
            found[short] = sorted(await bus.command("SMEMBERS", name))
        else:
            found[short] = await bus.command("GET", name) if short != "install" else b"*"
        found[f"{short} has a TTL"] = await bus.command("PTTL", name) >= 0
    for value in found.values():  # a field may name an entry that has gone: then only that it names one counts
        if isinstance(value, dict) and "attempt" in value:
            streams = {"entry": value.get("stream", b"").decode(), "dentry": f"decode:{value['holder'].decode()}"}
            for field, stream in streams.items():
                if value.get(field):
                    value[field] = places.get((stream, value[field].decode()), "gone")
    return found


async def _holders(bus: Bus, stream: str) -> dict[bytes, int]:
    """Number of pending entries by consumer, over all groups of a stream."""
    counts: dict[bytes, int] = {}
    for group in await bus.command("XINFO GROUPS", stream):
        for consumer in await bus.command("XINFO CONSUMERS", stream, group["name"]):
            if consumer["pending"]:
                counts[consumer["name"]] = consumer["pending"]
    return counts
