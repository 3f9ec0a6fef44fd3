"""What a run gives: one timeline per request, in columns, and what happened to the cluster."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from brigade.core.timeline import SLO, RequestTimeline

_NONE = -1


class TimelineColumns(Sequence[RequestTimeline]):
    """Timelines of up to millions of requests, about 90 bytes each; an item is made when it is asked for."""

    _COLUMNS = (
        "isl",
        "osl",
        "arrival",
        "claimed",
        "first_token",
        "decoding",
        "last_token",
        "cached",
        "attempts",
        "flags",
    )

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in self._COLUMNS}
        self._classes: list[str] = []
        self._slos: list[SLO] = []
        self._order: list[int] | None = None
        self._indices = array("q")

    def add(
        self,
        *,
        index: int,
        priority_class: str,
        isl: int,
        num_out: int,
        arrival_ns: int,
        claimed_ns: int,
        first_token_ns: int,
        decoding_ns: int,
        last_token_ns: int,
        num_cached: int,
        attempts: int,
        refused: bool,
        slo: SLO,
    ) -> None:
        """Record one request that has ended; -1 stands for a stamp that never came."""
        values = (isl, num_out, arrival_ns, claimed_ns, first_token_ns, decoding_ns, last_token_ns, num_cached)
        for column, value in zip(self._columns.values(), (*values, attempts, refused), strict=True):
            column.append(value)
        self._classes.append(priority_class)
        self._slos.append(slo)
        self._indices.append(index)
        self._order = None

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> RequestTimeline: ...

    @overload
    def __getitem__(self, place: slice) -> list[RequestTimeline]: ...

    def __getitem__(self, place: int | slice) -> RequestTimeline | list[RequestTimeline]:
        """Return the requests in the order of their arrival."""
        if self._order is None:
            self._order = sorted(range(len(self)), key=self._indices.__getitem__)
        if isinstance(place, slice):
            return [self._timeline(row) for row in self._order[place]]
        return self._timeline(self._order[place])

    def __iter__(self) -> Iterator[RequestTimeline]:
        for place in range(len(self)):
            yield self[place]

    def _timeline(self, row: int) -> RequestTimeline:
        columns = self._columns

        def stamp(name: str) -> int | None:
            value = columns[name][row]
            return None if value == _NONE else value

        return RequestTimeline(
            request_id=f"r{self._indices[row]:08d}",
            priority_class=self._classes[row],
            isl=columns["isl"][row],
            osl=columns["osl"][row],
            arrival_ns=columns["arrival"][row],
            claimed_ns=stamp("claimed"),
            first_token_ns=stamp("first_token"),
            decoding_ns=stamp("decoding"),
            last_token_ns=stamp("last_token"),
            num_cached_tokens=columns["cached"][row],
            attempts=columns["attempts"][row],
            refused=bool(columns["flags"][row]),
            slo=self._slos[row],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRecord:
    """One wish for a role: when it was decided, when its worker was empty and served again, or why it was refused."""

    worker_id: str
    role: str
    decided_ns: int
    switched_ns: int | None
    reason: str


@dataclass(slots=True, kw_only=True)
class SimResult:
    """`horizon_ns` is when the last request ended. `num_unfinished` are requests that no worker was left to serve."""

    timelines: TimelineColumns = field(default_factory=TimelineColumns)
    flips: list[FlipRecord] = field(default_factory=list)
    horizon_ns: int = 0
    num_events: int = 0
    num_steps: int = 0
    num_unfinished: int = 0
    was_interrupted: bool = False
