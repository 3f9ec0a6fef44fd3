"""Stop strings over text that arrives in pieces: nothing of a stop leaves before it is known not to be one.

The match that ends first wins (of two that end together, the longer), so the answer does not depend on where tokens
begin and end.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one answer for its stop strings (each a prefix automaton after Knuth, Morris and Pratt)."""

    __slots__ = ("_failures", "_held", "_states", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would match everywhere"
        self._stops = tuple(sorted(stops, key=len, reverse=True))
        self._failures = tuple(_failure_table(stop) for stop in self._stops)
        self._states = [0] * len(self._stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take the next text. Return what may leave now, and the stop string once one is complete.

        With a stop, what is returned ends right before it; nothing may be pushed after that.
        """
        buffered = self._held + text
        states = self._states
        for place in range(len(self._held), len(buffered)):
            character = buffered[place]
            for index, stop in enumerate(self._stops):
                state = states[index]
                while state and stop[state] != character:
                    state = self._failures[index][state - 1]
                state += stop[state] == character
                if state == len(stop):
                    return buffered[: place + 1 - state], stop
                states[index] = state
        num_held = max(states, default=0)
        self._held = buffered[len(buffered) - num_held :]
        return buffered[: len(buffered) - num_held], None

    def flush(self) -> str:
        """Return what was held back: the answer ended and it was no stop string."""
        held, self._held = self._held, ""
        return held


def _failure_table(pattern: str) -> tuple[int, ...]:
    """Return, for each prefix of the pattern, the length of its longest proper border."""
    table = [0] * len(pattern)
    length = 0
    for place in range(1, len(pattern)):
        while length and pattern[place] != pattern[length]:
            length = table[length - 1]
        length += pattern[place] == pattern[length]
        table[place] = length
    return tuple(table)
