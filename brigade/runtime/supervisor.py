"""Keeps a set of child processes running: starts them, starts again what dies, ends them in order.

It knows nothing of what they do. A child that a wrong setting kept from starting (exit status 2), or that dies at once
three times, ends the start of the whole; once the installation has been ready, children are started again for ever.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from brigade.core.errors import StartError
from brigade.runtime.child import Child, ChildSpec
from brigade.runtime.service_args import EXIT_WRONG_SETTING

QUICK_DEATH_S = 5.0
"""A child that ends within this time of its start died at once."""

MAX_QUICK_DEATHS = 3
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.25, 5.0


class Supervisor:
    """Runs children. `say` takes sentences for the operator, `show` the name and each output line of a child."""

    def __init__(self, *, say: Callable[[str], None], show: Callable[[str, str], None]) -> None:
        self.is_ready = False
        """Set by the owner when the whole installation has been ready once."""
        self._say = say
        self._show = show
        self._children: dict[str, Child] = {}
        self._stopping = asyncio.Event()

    def pids(self) -> dict[str, int]:
        """Return the process id of each running child by name."""
        return {name: child.pid for name, child in self._children.items() if not child.exited.done()}

    async def keep(self, spec: ChildSpec) -> None:
        """Run one child until `end`; start it again when it dies. Raises StartError when it cannot come up."""
        loop = asyncio.get_running_loop()
        num_quick_deaths = 0
        while not self._stopping.is_set():
            started_s = loop.time()
            child = self._children[spec.name] = Child(spec, on_line=lambda line: self._show(spec.name, line))
            status = await asyncio.shield(child.exited)
            if self._stopping.is_set():
                return
            num_quick_deaths = num_quick_deaths + 1 if loop.time() - started_s < QUICK_DEATH_S else 0
            if not self.is_ready and (status == EXIT_WRONG_SETTING or num_quick_deaths == MAX_QUICK_DEATHS):
                raise StartError(f"{spec.name} could not start: {_why(child, status)}")
            self._say(f"{spec.name} ended ({_describe(status)}); starting it again")
            await self._pause(_backoff_s(num_quick_deaths))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the end begins."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def end(self, phases: Sequence[Sequence[str]], *, limit_s: float) -> list[str]:
        """Drain the children, phase after phase, each within `limit_s`; kill what is left. Return names of the killed.

        A child that no phase names ends last. After this, `keep` returns.
        """
        self._stopping.set()
        named = {name for phase in phases for name in phase}
        killed: list[str] = []
        for phase in (*phases, [name for name in self._children if name not in named]):
            children = [self._children[name] for name in phase if name in self._children]
            for child in children:
                child.terminate()
            if children:
                await asyncio.wait([child.exited for child in children], timeout=limit_s)
            late = [child for child in children if not child.exited.done()]
            killed += [child.spec.name for child in late]
            await self._kill(late)
        return killed

    async def kill_all(self) -> None:
        """End every child at once."""
        self._stopping.set()
        await self._kill(list(self._children.values()))

    async def _kill(self, children: Sequence[Child]) -> None:
        for child in children:
            child.kill()
        for child in children:
            await asyncio.shield(child.exited)


def _backoff_s(num_quick_deaths: int) -> float:
    """Return the pause before a child is started again: doubled with each death at once, up to a bound."""
    return float(min(_BACKOFF_FIRST_S * 2 ** min(num_quick_deaths, 10), _BACKOFF_MAX_S))


def _why(child: Child, status: int) -> str:
    """Return the child's own last words, or how it ended when it said nothing."""
    last = next((line for line in reversed(child.last_lines) if line.strip()), "")
    if status == EXIT_WRONG_SETTING and last:
        return last
    return f"{_describe(status)}; its last line: {last}" if last else _describe(status)


def _describe(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
