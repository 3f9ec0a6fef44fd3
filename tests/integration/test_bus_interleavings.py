"""Random interleavings of an owner and workers over the real scripts, with lost replies, false deaths and crashes."""

from __future__ import annotations

import random

import pytest
from support.bus_actors import BusActors, Worker
from support.bus_interleaving import Computation, OwnerPlayer, Player, WorkerPlayer, check

from brigade.core.request import RequestState

NUM_TURNS = 300


class Game:
    """The players of one seed. A worker that dies is followed by one with a new id; the dead one may go on as a zombie."""

    def __init__(self, actors: BusActors, seed: int) -> None:
        self.actors = actors
        self.rng = random.Random(seed)
        self.computation = Computation()
        self.workers: list[WorkerPlayer] = []
        self.zombies: list[WorkerPlayer] = []
        self.num_born = 0

    async def start(self) -> None:
        self.owner = OwnerPlayer(self.rng, await self.actors.owner(), self.computation)
        for _ in range(3):
            await self.bear()

    async def bear(self) -> None:
        worker: Worker = await self.actors.worker(f"w{self.num_born}")
        self.num_born += 1
        self.workers.append(WorkerPlayer(self.rng, worker, self.computation, self.workers))

    async def kill_one(self) -> None:
        victim = self.workers.pop(self.rng.randrange(len(self.workers)))
        await victim.worker.stop()
        if self.rng.random() < 0.6:
            self.zombies.append(victim)
        await self.bear()

    async def turn(self) -> None:
        chance = self.rng.random()
        if chance < 0.01:
            await self.kill_one()
        elif chance < 0.03:
            await self.actors.sweep()
        else:
            players: list[Player] = [self.owner, self.owner, *self.workers, *self.zombies]
            await self.rng.choice(players).turn()
        await check(self.actors, self.workers + self.zombies)

    async def end(self) -> None:
        """No more faults of ours; every request must come to its end."""
        self.owner.max_requests = 0
        for _ in range(3000):
            if not self.owner.unfinished and self.owner.again is None:
                return
            await self.owner.turn() if self.owner.again else await self.owner.read_frames()
            if self.owner.again is None:
                await self.owner.watch()
            for player in self.workers:
                if player.again:
                    await player.turn()
                else:
                    if player.is_draining:
                        await player.drain_or_switch()
                    for act in (player.claim, player.end_prefill, player.receive, player.admit, player.step):
                        if player.again is None:
                            await act()
        left = {request_id: await self.actors.state(request_id) for request_id in self.owner.unfinished}
        raise AssertionError(f"these requests never end: {left}")


@pytest.mark.parametrize("seed", range(6))
async def test_any_interleaving_keeps_one_holder_one_answer_and_leaves_nothing_behind(
    actors: BusActors, seed: int
) -> None:
    """Rules 1 to 14 together: after every call each entry is the living attempt's own and only its holder works on it;
    every accepted token continues exactly the accepted answer; in the end nothing is pending and no key leaks."""
    game = Game(actors, seed)
    await game.start()
    for _ in range(NUM_TURNS):
        await game.turn()
    await game.end()
    assert len(game.owner.attempt) >= 5
    for request_id in game.owner.attempt:
        assert RequestState((await actors.state(request_id))[0]).is_terminal
    assert await actors.queued() == []
    for player in game.workers:
        assert await actors.num_pending(player.worker.worker_id) == 0
        assert await actors.num_decode_entries(player.worker.worker_id) == 0
