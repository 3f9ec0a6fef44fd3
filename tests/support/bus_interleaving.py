"""One owner and several workers that make random legal calls, lose replies and die: checked after every call.

Every computed token is unique and remembers the tokens that it was computed from, so an accepted token that was computed
from anything but the accepted answer before it is seen at once. A call whose reply is lost is executed; its caller does
nothing else until it has sent it again, while all others go on.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from brigade.bus.decode_stream import Finish, ReceivedJob, StepFrame
from brigade.bus.prefill_queue import ClaimedJob
from brigade.bus.registry import Lease
from brigade.core.messages import AttemptKey, PullFailed, TokensPart
from brigade.core.request import RequestState
from brigade.core.step import Sampled
from support.bus_actors import BusActors, Owner, Worker, decode_job, spec, status

MAX_TOKENS = 4
P_LOST_REPLY = 0.2

Call = Callable[[], Awaitable[Any]]
Then = Callable[[Any], None]


class Computation:
    """What was computed from what."""

    def __init__(self) -> None:
        self.context_of: dict[int, tuple[int, ...]] = {}

    def part(self, key: AttemptKey, context: tuple[int, ...]) -> TokensPart:
        """Compute the token that follows `context`."""
        token_id = len(self.context_of) + 1
        self.context_of[token_id] = context
        last = len(context) + 1 == MAX_TOKENS
        return TokensPart(
            request_id=key[0],
            attempt=key[1],
            offset=len(context),
            tokens=(Sampled(token_id=token_id),),
            finish_reason="length" if last else None,
        )


class Player:
    """Somebody who calls, may lose a reply, and then sends the same call again before anything else."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.again: tuple[Call, Then, AttemptKey | None] | None = None

    async def call(self, call: Call, then: Then, key: AttemptKey | None = None) -> None:
        answer = await call()
        if self.rng.random() < P_LOST_REPLY:
            self.again = (call, then, key)
        else:
            self.again = None
            then(answer)

    async def turn(self) -> None:
        if self.again:
            await self.call(*self.again)
        else:
            await self.act()

    async def act(self) -> None:
        raise NotImplementedError

    def is_sure_of(self, key: AttemptKey) -> bool:
        return self.again is None or self.again[2] not in (key, ("*", 0))


ALL: AttemptKey = ("*", 0)


class OwnerPlayer(Player):
    """The owner: its table of answers, raises, cancels."""

    def __init__(self, rng: random.Random, owner: Owner, computation: Computation) -> None:
        super().__init__(rng)
        self.owner = owner
        self.computation = computation
        self.attempt: dict[str, int] = {}
        self.answer: dict[str, list[int]] = {}
        self.ended: set[str] = set()
        self.max_requests = 8

    @property
    def unfinished(self) -> list[str]:
        return [request_id for request_id in self.attempt if request_id not in self.ended]

    async def act(self) -> None:
        chance = self.rng.random()
        if chance < 0.25 and len(self.attempt) < self.max_requests:
            request_id = f"q{len(self.attempt)}"
            self.attempt[request_id], self.answer[request_id] = 1, []
            await self.call(lambda: self.owner.submit(request_id), lambda _: None)
        elif chance < 0.33 and self.unfinished:
            await self.raise_attempt(self.rng.choice(self.unfinished))
        elif chance < 0.36 and self.unfinished:
            request_id = self.rng.choice(self.unfinished)
            attempt = self.attempt[request_id]
            self.ended.add(request_id)  # the client has left: its frames do not matter any more
            await self.call(
                lambda: self.owner.store.conclude(
                    request_id, attempt=attempt, state=RequestState.CANCELLED, reason="client left"
                ),
                lambda _: None,
            )
        elif chance < 0.5:
            await self.watch()
        else:
            await self.read_frames()

    async def raise_attempt(self, request_id: str) -> None:
        old, prefix = self.attempt[request_id], tuple(self.answer[request_id])
        new = old + 1

        def then(answer: str) -> None:
            assert answer in ("RAISED", "ALREADY", "FINISHED"), answer
            if answer != "FINISHED":
                self.attempt[request_id] = new

        await self.call(
            lambda: self.owner.store.raise_attempt(spec(request_id), believed=old, new=new, prefix=prefix, force=False),
            then,
        )

    async def watch(self) -> None:
        """Raise what a dead worker holds."""
        ids = self.unfinished
        for request_id, standing in zip(ids, await self.owner.store.standings(ids), strict=True):
            if not standing.holder_alive:
                await self.raise_attempt(request_id)
                return

    async def read_frames(self) -> None:
        failed = []
        for part in await self.owner.unread():
            request_id = part.request_id
            if request_id in self.ended or part.attempt != self.attempt[request_id]:
                continue
            if isinstance(part, PullFailed):
                failed.append(request_id)
                continue
            answer = self.answer[request_id]
            assert part.offset <= len(answer), f"a gap before {part}"
            if part.offset < len(answer):
                continue
            token_id = part.tokens[0].token_id
            assert self.computation.context_of[token_id] == tuple(answer), f"{part} continues another answer"
            answer.append(token_id)
            if part.finish_reason:
                assert len(answer) == MAX_TOKENS
                self.ended.add(request_id)
        for request_id in failed:
            if self.again is None and request_id in self.unfinished:
                await self.raise_attempt(request_id)


class WorkerPlayer(Player):
    """A worker that prefills and decodes; `others` are the players it may hand work to."""

    def __init__(
        self, rng: random.Random, worker: Worker, computation: Computation, others: list[WorkerPlayer]
    ) -> None:
        super().__init__(rng)
        self.worker = worker
        self.computation = computation
        self.others = others
        self.claimed: dict[AttemptKey, ClaimedJob] = {}
        self.waiting: dict[AttemptKey, ReceivedJob] = {}
        self.decoding: dict[AttemptKey, tuple[ReceivedJob, tuple[int, ...]]] = {}
        self.is_draining = False

    async def act(self) -> None:
        acts = [self.claim, self.end_prefill, self.receive, self.admit, self.step, self.step]
        acts += [self.heartbeat, self.rare]
        await self.rng.choice(acts)()

    async def rare(self) -> None:
        await self.rng.choice([self.give_back, self.let_go, self.migrate, self.drain_or_switch])()

    async def claim(self) -> None:
        window = await self.worker.queue.window(8)
        chosen = self.rng.sample(window, min(len(window), self.rng.randint(1, 3)))
        if chosen:
            await self.call(
                lambda: self.worker.queue.claim(chosen),
                lambda claimed: self.claimed.update({c.waiting.job.key: c for c in claimed}),
                ALL,
            )

    async def end_prefill(self) -> None:
        if not self.claimed:
            return
        key, claimed = self.rng.choice(list(self.claimed.items()))
        first = self.computation.part(key, claimed.prefix)
        target = self.rng.choice(self.others).worker
        output = (*claimed.prefix, first.tokens[0].token_id)
        job = decode_job(key[0], attempt=key[1], epoch=target.epoch, worker_id=self.worker.worker_id, output=output)

        def then(answer: str) -> None:
            if answer not in ("TARGET", "NO_OWNER"):
                del self.claimed[key]

        if first.finish_reason:
            await self.call(lambda: self.worker.queue.finish(claimed, first), then, key)
        else:
            await self.call(lambda: self.worker.queue.hand_over(claimed, first, target.worker_id, job), then, key)

    async def give_back(self) -> None:
        if self.claimed:
            key, claimed = self.rng.choice(list(self.claimed.items()))
            await self.call(
                lambda: self.worker.queue.give_back([claimed.waiting]), lambda _: self.claimed.pop(key), key
            )

    async def receive(self) -> None:
        if not await self.worker.bus.command("EXISTS", self.worker.bus.keys.decode(self.worker.worker_id)):
            return  # swept: a heartbeat will say so
        for received in await self.worker.deliveries():
            if received.job.key not in self.decoding:
                self.waiting[received.job.key] = received

    async def admit(self) -> None:
        if not self.waiting:
            return
        key, received = self.rng.choice(list(self.waiting.items()))

        def then(answers: list[str]) -> None:
            del self.waiting[key]
            if answers == ["OK"]:
                self.decoding[key] = (received, received.job.output_token_ids)

        await self.call(lambda: self.worker.decode.admit([received]), then, key)

    async def step(self) -> None:
        """One frame: a token of each running request, finishes included."""
        frame = StepFrame(parts=[], finishes=[])
        ending = []
        for key, (received, context) in list(self.decoding.items()):
            part = self.computation.part(key, context)
            if part.finish_reason:
                frame.finishes.append(Finish(entry_id=received.entry_id, part=part))
                ending.append(key)
            else:
                frame.parts.append(part)
                self.decoding[key] = (received, (*context, part.tokens[0].token_id))

        def then(_: list[str]) -> None:
            for key in ending:
                del self.decoding[key]

        if frame.parts or frame.finishes:
            await self.call(lambda: self.worker.decode.publish({"r1": frame}, timeout_s=5), then, ALL)

    async def let_go(self) -> None:
        held = {**self.waiting, **{key: received for key, (received, _) in self.decoding.items()}}
        if held:
            key, received = self.rng.choice(list(held.items()))

            def then(_: str) -> None:
                self.waiting.pop(key, None)
                self.decoding.pop(key, None)

            await self.call(lambda: self.worker.decode.let_go(received.job, received.entry_id, "gone"), then, key)

    async def migrate(self) -> None:
        if not self.decoding:
            return
        key, (received, context) = self.rng.choice(list(self.decoding.items()))
        target = self.rng.choice(self.others).worker
        if target is self.worker:
            return
        job = decode_job(key[0], attempt=key[1], epoch=target.epoch, worker_id=self.worker.worker_id, output=context)

        def then(answer: str) -> None:
            if answer != "TARGET":
                del self.decoding[key]

        await self.call(lambda: self.worker.decode.migrate(received.entry_id, None, target.worker_id, job), then, key)

    async def drain_or_switch(self) -> None:
        if not self.is_draining:
            self.is_draining = await self.worker.lease.start_draining()
            return
        epoch = self.worker.epoch + 1

        def then(answer: str) -> None:
            if answer == "OK":
                self.worker.epoch, self.is_draining = epoch, False

        await self.call(lambda: self.worker.lease.switch(self.worker.role, epoch), then)

    async def heartbeat(self) -> None:
        running = [*self.claimed, *self.waiting, *self.decoding]
        reply = await self.worker.lease.beat(status(self.worker.worker_id), running, [])
        if reply.lease is Lease.OK:
            for table in (self.claimed, self.waiting, self.decoding):
                for key in reply.ended & table.keys():
                    del table[key]


async def check(actors: BusActors, players: list[WorkerPlayer]) -> None:
    """Every entry is the living attempt's own, and nobody but the record's holder works on the living attempt."""
    entries = []
    for stream in actors.keys.streams:
        for entry_id, f in await actors.bus.command("XRANGE", actors.keys.queue(stream), "-", "+"):
            entries.append((b"entry", entry_id, f[b"r"].decode(), f[b"a"]))
    for member in await actors.bus.command("SMEMBERS", actors.keys.workers):
        for entry_id, f in await actors.bus.command("XRANGE", actors.keys.decode(member.decode()), "-", "+"):
            entries.append((b"dentry", entry_id, f[b"r"].decode(), f[b"a"]))
    for field, entry_id, request_id, attempt in entries:
        record = await actors.bus.command("HGETALL", actors.keys.request(request_id))
        state = RequestState(record[b"state"].decode())
        assert not state.is_terminal, f"{field!r} {entry_id!r} of {request_id}, which is {state}"
        assert (record[b"attempt"], record[field]) == (attempt, entry_id), f"{field!r} {entry_id!r} of {request_id}"
    for player in players:
        for key in [*player.claimed, *player.decoding]:
            state, attempt, holder = await actors.state(key[0])
            if attempt == key[1] and state in ("PREFILLING", "HANDED", "DECODING") and player.is_sure_of(key):
                assert holder == player.worker.worker_id, f"{player.worker.worker_id} works on {key}, held by {holder}"
