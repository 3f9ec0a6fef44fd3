"""What one state of the model holds, and the small functions that every part shares.

Everything is an immutable tuple, so a state can be hashed and compared. Unordered collections (queue, decode streams, jobs of
a worker) are kept sorted, so that two states which differ in order only are one state.
"""

from typing import Any, NamedTuple, TypeVar

INBOX = -1
"""Consumer that holds delivered prefill entries which no worker has claimed yet."""

QUEUED, PREFILLING, HANDED, DECODING = "QUEUED", "PREFILLING", "HANDED", "DECODING"
FINISHED, CANCELLED, FAILED = "FINISHED", "CANCELLED", "FAILED"
TERMINAL = frozenset({FINISHED, CANCELLED, FAILED})

FREE, OWN, LENT = "free", "own", "lent"

# Phases of a request at its owner.
NEW = "new"  # in the owner's table, first script not yet confirmed
UNSURE = "unsure"  # first script sent, reply lost
OPEN = "open"  # frames are accepted
EARLY = "early"  # (mistake only) prefix taken, frames still accepted
RAISE = "raise"  # frozen; the raise asks for a state that is not terminal
FORCE = "force"  # frozen; the raise may reopen a FINISHED record
REPLY = "reply"  # raise executed, its reply not yet read
STOPPING = "stopping"  # a stop string ended the answer; the record does not say so yet
DONE, LEFT, ERROR, STOPPED = "done", "left", "error", "stopped"
ENDED = frozenset({DONE, LEFT, ERROR, STOPPED})
"""Left: the client went away. Error: its answer ended with an error."""

TOKEN, LAST_TOKEN, PULL_FAILED = "token", "last", "pull failed"

# Steps of a job at a worker.
CLAIMED, PREFILLED = "claimed", "prefilled"
READ, HALF_COPIED, COPIED, RUNNING, UNPUBLISHED = "read", "half copied", "copied", "running", "unpublished"
DECODE_STEPS = frozenset({READ, HALF_COPIED, COPIED, RUNNING, UNPUBLISHED})

# Modes of a worker in a role flip.
SERVING, FLIP_WANTED, DRAINING, SWITCHING = "serving", "flip wanted", "draining", "switching"

WAITING, ANSWERED, GONE, ANSWERED_WITH_ERROR = "waiting", "answered", "gone", "answered with an error"

SAFE, USED = "safe", "used"
"""Snapshot words: the writes are on disk, so they cannot be lost; the one loss has happened."""

Tokens = tuple[int, ...]


class Violation(Exception):
    """An invariant does not hold in the state at hand."""


class Record(NamedTuple):
    """`req:ID`. A missing record is None and counts as terminal."""

    attempt: int
    status: str
    holder: int | None


class PrefillEntry(NamedTuple):
    """A PrefillJob; `consumer` is INBOX or the worker in whose pending list it stands."""

    request: int
    attempt: int
    prefix: Tokens
    consumer: int


class DecodeEntry(NamedTuple):
    """A DecodeJob on `decode:WORKER` with its KV handle (source worker, block, generation)."""

    request: int
    attempt: int
    tokens: Tokens
    source: int
    block: int
    generation: int
    delivered: bool


class Frame(NamedTuple):
    """One part of an entry on `tokens:ROUTER`; `tokens` is the whole context, its last one is new."""

    request: int
    attempt: int
    tokens: Tokens
    kind: str


class Registration(NamedTuple):
    """`worker:ID` without its heartbeat."""

    role: str
    accepting: bool
    epoch: int


class Router(NamedTuple):
    """`router:ID` of the owner: its present id, and for each request the id under which it was recorded."""

    router_id: int
    heartbeat: bool
    listed: bool
    homes: tuple[int, ...]


class Redis(NamedTuple):
    """Everything that Redis knows. `head` is the index of the next frame."""

    records: tuple[Record | None, ...]
    queue: tuple[PrefillEntry, ...]
    streams: tuple[tuple[DecodeEntry, ...], ...]
    head: int
    frames: tuple[Frame, ...]
    registry: tuple[Registration, ...]
    router: Router


class Block(NamedTuple):
    """One block of a pool; `content` is (request, attempt, tokens), None, or a word for garbage."""

    generation: int
    use: str
    content: Any


class Job(NamedTuple):
    """What a worker knows of one attempt. `good` is the first generation check, or a flag of a two-step mistake."""

    request: int
    attempt: int
    step: str
    tokens: Tokens
    block: int | None
    source: int | None
    source_block: int | None
    source_generation: int | None
    good: bool


class Worker(NamedTuple):
    alive: bool
    heartbeat: bool
    pool: tuple[Block, ...]
    jobs: tuple[Job, ...]
    mode: str


class Request(NamedTuple):
    """A request in the owner's table.

    `attempt` is the highest attempt confirmed (in UNSURE: sent), `target` the one being raised to, `early_prefix` belongs to a
    mistake, `held` are the frames read but neither accepted nor dropped.
    """

    phase: str
    attempt: int
    accepted: Tokens
    held: tuple[Frame, ...]
    target: int
    early_prefix: Tokens


class Owner(NamedTuple):
    """The router. `forgot`: the Redis it is connected to has forgotten writes, and it has not acted on that yet."""

    alive: bool
    cursor: int
    requests: tuple[Request, ...]
    forgot: bool


class Snapshot(NamedTuple):
    """The state to which a loss of the last writes returns, and how many writes came after it."""

    redis: Redis
    num_writes: int


class LateCommand(NamedTuple):
    """A script whose sender gave up before Redis executed it.

    `target` (an attempt), `prefix` and `reopen` belong to the owner's scripts, `entry` and `to_worker` to a migration.
    """

    kind: str
    request: int
    router_id: int
    target: int
    prefix: Tokens
    reopen: bool
    entry: DecodeEntry | None = None
    to_worker: int = 0


class Environment(NamedTuple):
    """What belongs to no process: late commands, clients with several branches, the time after an outage."""

    late: tuple[LateCommand, ...]
    clients: tuple[str, ...]
    settling: bool


class State(NamedTuple):
    redis: Redis
    workers: tuple[Worker, ...]
    owner: Owner
    budgets: tuple[int, ...]
    snapshot: Snapshot | str | None
    environment: Environment


T = TypeVar("T")


def replaced(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    """The tuple with one position changed."""
    return (*items[:index], item, *items[index + 1 :])


def without(items: tuple[T, ...], item: T) -> tuple[T, ...]:
    """The tuple without the first occurrence of an item that it has."""
    index = items.index(item)
    return items[:index] + items[index + 1 :]


def added(items: tuple[T, ...], item: T) -> tuple[T, ...]:
    """The sorted collection with one item more."""
    return tuple(sorted((*items, item), key=tuple.__repr__))


def is_stale(records: tuple[Record | None, ...], request: int, attempt: int) -> bool:
    """The rule that every script shares: a missing record is a terminal one."""
    record = records[request]
    return record is None or record.status in TERMINAL or record.attempt != attempt


def allocated(pool: tuple[Block, ...], content: Any) -> tuple[int | None, tuple[Block, ...]]:
    """Index of a free block and the pool in which it is used; (None, pool) when all are in use."""
    for index, block in enumerate(pool):
        if block.use == FREE:
            return index, replaced(pool, index, Block(block.generation + 1, OWN, content))  # raised before re-use
    return None, pool


def with_use(pool: tuple[Block, ...], index: int, use: str) -> tuple[Block, ...]:
    """The pool with a block free, own or lent; its content stays until it is used again."""
    block = pool[index]
    return replaced(pool, index, Block(block.generation, use, block.content))


def with_freed(pool: tuple[Block, ...], index: int | None) -> tuple[Block, ...]:
    """The pool with a block freed, or unchanged for a job that has none."""
    return pool if index is None else with_use(pool, index, FREE)


def with_record(redis: Redis, request: int, record: Record) -> Redis:
    return redis._replace(records=replaced(redis.records, request, record))


def with_frame(redis: Redis, frame: Frame) -> Redis:
    """XADD with NOMKSTREAM: a frame for a router id whose stream has been deleted goes nowhere."""
    router = redis.router
    if not router.listed or router.homes[frame.request] != router.router_id:
        return redis
    return redis._replace(head=redis.head + 1, frames=(*redis.frames, frame))


def with_stream(redis: Redis, worker: int, entries: tuple[DecodeEntry, ...]) -> Redis:
    return redis._replace(streams=replaced(redis.streams, worker, entries))
