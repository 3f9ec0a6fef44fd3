"""One model: a scenario, the mistakes switched on, and the collector of what can happen next."""

from dataclasses import dataclass, fields

from verification.protocol.state import (
    FREE,
    NEW,
    SAFE,
    SERVING,
    WAITING,
    Block,
    Environment,
    LateCommand,
    Owner,
    Redis,
    Registration,
    Request,
    Router,
    Snapshot,
    State,
    Worker,
    added,
    replaced,
)

FAULTS = (
    "crash",
    "slow",
    "cancel",
    "flip",
    "loss",
    "owner_crash",
    "lost_reply",
    "restart",
    "trim",
    "outage",
    "owner_slow",
    "stop",
    "late",
)
FAULT_INDEX = {name: index for index, name in enumerate(FAULTS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The size of the world and how often each fault may happen."""

    roles: str = "PPDD"
    """One letter a worker: Prefill, Decode, Mixed."""
    num_requests: int = 1
    num_tokens: int = 2
    num_blocks: int = 2
    """Blocks in the pool of each worker; a request needs one."""
    crash: int = 0
    slow: int = 0
    """A heartbeat ends though its worker lives."""
    cancel: int = 0
    flip: int = 0
    loss: int = 0
    """Redis returns to an earlier state."""
    owner_crash: int = 0
    lost_reply: int = 0
    restart: int = 0
    """A crashed worker starts again under its name before its heartbeat has ended."""
    trim: int = 0
    """MAXLEN takes an unread frame."""
    outage: int = 0
    """All heartbeats vanish at once."""
    owner_slow: int = 0
    """The owner's heartbeat ends though it lives."""
    stop: int = 0
    """A stop string ends an answer."""
    late: int = 0
    """An owner gives a script up that Redis executes later."""
    total: int = 9
    loss_writes: int = 3
    """Most writes that a loss takes."""
    max_attempts: int = 6
    """An attempt beyond this one counts as running away."""
    batched: bool = False
    """A decode worker publishes all its new tokens in one script."""
    branches: bool = False
    """All requests are branches of one client's request."""
    expiry: bool = False
    """A terminal record vanishes some time later."""
    leases: bool = False
    """The owner has a heartbeat, and scripts ask for it."""
    attempt_limit: int = 0
    """The last attempt before the owner gives up; 0: no limit."""

    def settings(self) -> str:
        """The fields that differ from their defaults, for people."""
        changed = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join(f"{name}={value}" for name, value in changed)


class Model:
    """A scenario with the mistakes that are switched on; holds no state of the exploration."""

    def __init__(self, scenario: Scenario, mistakes: frozenset[str] = frozenset()) -> None:
        self.scenario = scenario
        self.mistakes = mistakes
        self.num_workers = len(scenario.roles)
        self.budgets = (*(int(getattr(scenario, name)) for name in FAULTS), scenario.total)
        self.no_budgets = (0,) * len(self.budgets)

    def initial(self) -> State:
        """Nothing recorded, all blocks free, every process alive."""
        size = self.scenario
        pool = tuple(Block(0, FREE, None) for _ in range(size.num_blocks))
        redis = Redis(
            records=(None,) * size.num_requests,
            queue=(),
            streams=((),) * self.num_workers,
            head=0,
            frames=(),
            registry=tuple(Registration(role, True, 0) for role in size.roles),
            router=Router(0, True, True, (0,) * size.num_requests),
        )
        return State(
            redis=redis,
            workers=tuple(Worker(True, True, pool, (), SERVING) for _ in range(self.num_workers)),
            owner=Owner(True, 0, tuple(Request(NEW, 0, (), (), 0, ()) for _ in range(size.num_requests)), False),
            budgets=self.budgets,
            snapshot=None,
            environment=Environment((), (WAITING,) if size.branches else (), False),
        )

    def can(self, state: State, fault: str) -> bool:
        """Is the fault still within its budget and the total?"""
        return state.budgets[FAULT_INDEX[fault]] > 0 and state.budgets[-1] > 0

    def paid(self, budgets: tuple[int, ...], fault: str) -> tuple[int, ...]:
        index = FAULT_INDEX[fault]
        budgets = replaced(budgets, index, budgets[index] - 1)
        return replaced(budgets, len(budgets) - 1, budgets[-1] - 1)

    def sees_gone(self, state: State, worker: int, careless: str) -> bool:
        """May somebody act on the missing heartbeat of a worker? Not within one TTL of a reconnect (rule 24)."""
        if state.workers[worker].heartbeat:
            return False
        return not state.environment.settling or careless in self.mistakes

    def owner_visible(self, redis: Redis) -> bool:
        """Do the scripts that start work find the heartbeat of the request's owner?"""
        return not self.scenario.leases or redis.router.heartbeat


@dataclass(slots=True)
class Script:
    """One script on Redis and what its sender does with the answer."""

    label: str
    redis: Redis
    workers: tuple[Worker, ...]
    owner: Owner
    environment: Environment
    may_lose_reply: bool
    owner_unanswered: Owner
    late: LateCommand | None
    workers_given_up: tuple[Worker, ...]


class Moves:
    """Collects everything that can happen next in one state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.steps: list[tuple[str, bool, State]] = []
        """(label, is it a fault, next state)"""
        self.scripts: list[Script] = []

    def local(
        self,
        label: str,
        *,
        redis: Redis | None = None,
        workers: tuple[Worker, ...] | None = None,
        owner: Owner | None = None,
        environment: Environment | None = None,
    ) -> None:
        """A step inside one process (or a read, which changes nothing that a loss could take)."""
        now = self.state
        then = State(
            now.redis if redis is None else redis,
            now.workers if workers is None else workers,
            now.owner if owner is None else owner,
            now.budgets,
            now.snapshot,
            now.environment if environment is None else environment,
        )
        self.steps.append((label, False, then))

    def script(
        self,
        label: str,
        redis: Redis,
        *,
        workers: tuple[Worker, ...] | None = None,
        owner: Owner | None = None,
        environment: Environment | None = None,
        may_lose_reply: bool = True,
        owner_unanswered: Owner | None = None,
        late: LateCommand | None = None,
        workers_given_up: tuple[Worker, ...] | None = None,
    ) -> None:
        """One atomic script; `workers` and `owner` are what its sender is after the reply."""
        now = self.state
        self.scripts.append(
            Script(
                label,
                redis,
                now.workers if workers is None else workers,
                now.owner if owner is None else owner,
                now.environment if environment is None else environment,
                may_lose_reply,
                now.owner if owner_unanswered is None else owner_unanswered,
                late,
                now.workers if workers_given_up is None else workers_given_up,
            )
        )

    def fault(self, label: str, state: State) -> None:
        self.steps.append((f"!! {label}", True, state))

    def time_passes(self, label: str, state: State) -> None:
        """Something that happens by itself and needs no budget."""
        self.steps.append((label, False, state))


def finish_scripts(model: Model, moves: Moves) -> list[tuple[str, bool, State]]:
    """All steps, with each script once answered, once with its reply lost and once executed late, where the budget allows."""
    now = moves.state
    steps = moves.steps
    for script in moves.scripts:
        snapshot = now.snapshot
        writes = script.redis != now.redis
        if writes and isinstance(snapshot, Snapshot):
            few = snapshot.num_writes < model.scenario.loss_writes
            snapshot = Snapshot(snapshot.redis, snapshot.num_writes + 1) if few else SAFE
        then = State(script.redis, script.workers, script.owner, now.budgets, snapshot, script.environment)
        steps.append((script.label, False, then))
        if not writes or not script.may_lose_reply:
            continue
        if model.can(now, "lost_reply"):
            budgets = model.paid(now.budgets, "lost_reply")
            then = State(script.redis, now.workers, script.owner_unanswered, budgets, snapshot, now.environment)
            steps.append((f"{script.label}  !! executed, reply lost", True, then))
        if script.late is not None and model.can(now, "late"):
            budgets = model.paid(now.budgets, "late")
            environment = now.environment._replace(late=added(now.environment.late, script.late))
            then = State(
                now.redis, script.workers_given_up, script.owner_unanswered, budgets, now.snapshot, environment
            )
            steps.append((f"{script.label}  !! given up, executed later", True, then))
    return steps
