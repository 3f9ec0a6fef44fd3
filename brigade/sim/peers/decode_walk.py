"""Decode steps above the peer's budget, one at a time.

The queue is cut into spans: neighbours that have run equally often since their needs were written down. A step takes whole spans
and a part of one more, so it costs a few additions and one binary search, not one pass over its requests.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

STEP_BUDGET_TOKENS = 50_000

# A step of more spans than this writes them down anew as one.
MAX_SPANS = 12


class _Record:
    """Requests as they were when written down: the running sums of their needs, and the tokens that each has left."""

    __slots__ = ("num_left", "requests", "sums")

    def __init__(self, requests: list[int], needs: list[int], num_left: list[int]) -> None:
        self.requests = requests
        self.num_left = num_left
        self.sums = list(accumulate(needs, initial=0))


class _Span:
    """Requests `start` to `end` of a record, which have run `rounds` since; the next of them finishes at `next_finish`."""

    __slots__ = ("end", "next_finish", "record", "rounds", "start")

    def __init__(self, record: _Record, start: int, end: int, rounds: int) -> None:
        self.record = record
        self.start = start
        self.end = end
        self.rounds = rounds
        self.next_finish = min(record.num_left[start:end])

    def entries(self) -> list[tuple[int, int]]:
        """Return (request, tokens left) in order, without those that have finished."""
        record, part, rounds = self.record, slice(self.start, self.end), self.rounds
        pairs = zip(record.requests[part], record.num_left[part], strict=True)
        return [(request, num_left - rounds) for request, num_left in pairs if num_left > rounds]


class Walk:
    """A queue whose head runs step by step. A request needs its context and one more token in a step."""

    def __init__(self, input_tokens: Sequence[int], output_tokens: Sequence[int]) -> None:
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens
        self._queue: deque[_Span] = deque()
        # Those of the last step that go on; they return to the tail when the next one starts.
        self._returning: list[_Span] = []

    def append(self, requests: list[int], num_left: list[int]) -> None:
        """Put requests with so many tokens left at the tail, before those of the last step."""
        self._queue.append(self._write_down(requests, num_left))

    def return_to_tail(self) -> None:
        """Put those of the last step at the tail."""
        self._queue += self._returning
        self._returning = []

    def queue(self) -> list[tuple[int, int]]:
        """Return (request, tokens left) in order."""
        self.return_to_tail()
        return [entry for span in self._queue for entry in span.entries()]

    def step(self, max_size: int) -> tuple[int, int, list[int]]:
        """Run one step of up to `max_size` requests and return its size, its context tokens and those that finished."""
        self.return_to_tail()
        taken, size, num_needed = self._take(max_size)
        finished: list[int] = []
        going: list[_Span] = []
        for span in taken:
            rounds = span.rounds = span.rounds + 1
            if rounds < span.next_finish:
                going.append(span)
                continue
            record = span.record
            finished += [record.requests[i] for i in range(span.start, span.end) if record.num_left[i] == rounds]
            if entries := span.entries():
                going.append(self._write_down(*map(list, zip(*entries, strict=True))))
        if len(going) > MAX_SPANS:
            entries = [entry for span in going for entry in span.entries()]
            going = [self._write_down(*map(list, zip(*entries, strict=True)))]
        self._returning = going
        return size, num_needed - size, finished

    def _take(self, max_size: int) -> tuple[list[_Span], int, int]:
        """Return the spans of the next step, the number of their requests and what they need of the budget."""
        queue = self._queue
        taken: list[_Span] = []
        size = num_needed = 0
        while queue:
            span = queue[0]
            sums, start, end, rounds = span.record.sums, span.start, span.end, span.rounds
            needed = sums[end] - sums[start] + (end - start) * rounds
            if num_needed + needed <= STEP_BUDGET_TOKENS and size + end - start <= max_size:
                taken.append(queue.popleft())
                num_needed += needed
                size += end - start
                continue
            limit = STEP_BUDGET_TOKENS - num_needed + sums[start] + start * rounds
            # The rounds shift the limit by little, so two searches in C leave few places for the third.
            low = bisect_right(sums, limit - end * rounds, start + 1, end)
            high = bisect_right(sums, limit - start * rounds, low, end)
            while low < high and sums[low] + low * rounds <= limit:
                low += 1
            cut = low - 1
            cut = min(cut, start + max_size - size)
            if cut > start:
                taken.append(_Span(span.record, start, cut, rounds))
                queue[0] = _Span(span.record, cut, end, rounds)
                num_needed += sums[cut] - sums[start] + (cut - start) * rounds
                size += cut - start
            break
        return taken, size, num_needed

    def _write_down(self, requests: list[int], num_left: list[int]) -> _Span:
        input_tokens, output_tokens = self._input_tokens, self._output_tokens
        needs = [
            input_tokens[request] + output_tokens[request] - left + 1
            for request, left in zip(requests, num_left, strict=True)
        ]
        return _Span(_Record(requests, needs, num_left), 0, len(requests), 0)
