"""Every key of an installation, in one place. All share one hash tag, so scripts also run on Redis Cluster.

Permanent keys (no TTL): `install`, `q:*`, `wake`, `workers`, `routers`, `term`, `dead`, `intents`, and per living
process `decode:W`, `control:W`, `role:W`, `tokens:R`, `owned:R`, which the janitor deletes with their process.
Everything else has a TTL: `worker:W`, `router:R`, `leader:balancer`, and `req:ID` from its terminal state on.
"""

from __future__ import annotations

from brigade.core.request import NUM_BANDS, PRIORITY_CLASSES

PREFILL_GROUP = "prefill"
DECODE_GROUP = "decode"
INBOX = "inbox"
"""Consumer of the prefill group that parks delivered entries which nobody has claimed."""


class Keys:
    """Names of one installation's keys."""

    def __init__(self, installation: str) -> None:
        self.prefix = f"{{brigade:{installation}}}:"
        self.install = self.prefix + "install"
        self.wake = self.prefix + "wake"
        self.workers = self.prefix + "workers"
        self.routers = self.prefix + "routers"
        self.term = self.prefix + "term"
        self.leader = self.prefix + "leader:balancer"
        self.dead = self.prefix + "dead"
        self.intents = self.prefix + "intents"
        self.streams = tuple(stream_name(c, band) for c in PRIORITY_CLASSES for band in range(NUM_BANDS))

    def request(self, request_id: str) -> str:
        return f"{self.prefix}req:{request_id}"

    def worker(self, worker_id: str) -> str:
        return f"{self.prefix}worker:{worker_id}"

    def role(self, worker_id: str) -> str:
        return f"{self.prefix}role:{worker_id}"

    def decode(self, worker_id: str) -> str:
        return f"{self.prefix}decode:{worker_id}"

    def control(self, worker_id: str) -> str:
        return f"{self.prefix}control:{worker_id}"

    def router(self, router_id: str) -> str:
        return f"{self.prefix}router:{router_id}"

    def tokens(self, router_id: str) -> str:
        return f"{self.prefix}tokens:{router_id}"

    def owned(self, router_id: str) -> str:
        return f"{self.prefix}owned:{router_id}"

    def queue(self, stream: str) -> str:
        return self.prefix + stream

    def is_permanent(self, key: str) -> bool:
        """Whether a key may stand without a TTL while its process lives. The clean-up tests ask this of every key left."""
        name = key.removeprefix(self.prefix)
        return name in _PERMANENT or name.startswith(_PERMANENT_PREFIXES)


_PERMANENT = frozenset({"install", "wake", "workers", "routers", "term", "dead", "intents"})
_PERMANENT_PREFIXES = ("q:", "decode:", "control:", "role:", "tokens:", "owned:")


def stream_name(priority_class: str, band: int) -> str:
    """Return the queue stream of a class and length band, without the installation's prefix."""
    return f"q:{priority_class}:{band}"
