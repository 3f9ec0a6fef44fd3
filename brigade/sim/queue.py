"""The waiting prefills, in one stream per class and length band as on the bus."""

from __future__ import annotations

from itertools import chain, islice

from brigade.core.messages import WaitingJob
from brigade.core.request import NUM_BANDS, PRIORITY_CLASSES
from brigade.sim.request import SimRequest

WINDOW_PER_STREAM = 32
"""Waiting jobs of each stream that a policy is shown, as live."""


class SimQueue:
    """Streams keep the order of arrival; what is queued again goes to the end."""

    def __init__(self) -> None:
        names = [(priority_class, band) for priority_class in PRIORITY_CLASSES for band in range(NUM_BANDS)]
        self._streams: dict[tuple[str, int], dict[str, WaitingJob]] = {name: {} for name in names}
        self._in_use = list(self._streams.values())
        self._requests: dict[str, SimRequest] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: SimRequest) -> None:
        self._requests[request.request_id] = request
        self._streams[request.stream][request.request_id] = request.header()

    def window(self) -> tuple[WaitingJob, ...]:
        """Return the oldest jobs of every stream."""
        filled = [stream for stream in self._in_use if stream]
        if len(filled) == 1 and len(filled[0]) <= WINDOW_PER_STREAM:
            return tuple(filled[0].values())
        return tuple(chain.from_iterable(islice(stream.values(), WINDOW_PER_STREAM) for stream in filled))

    def take(self, request_id: str) -> SimRequest:
        """Claim one."""
        request = self._requests.pop(request_id)
        del self._streams[request.stream][request_id]
        return request

    def requests(self) -> list[SimRequest]:
        """Return all that wait."""
        return list(self._requests.values())
