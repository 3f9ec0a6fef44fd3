"""The kinds of events."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What may happen, in the order in which it happens within one instant."""

    START = 0
    KILL = 1
    DETECT = 2
    FLIP = 3
    BEAT = 4
    ARRIVAL = 5
    HANDED = 6
    JOIN = 7
    STEP = 8
