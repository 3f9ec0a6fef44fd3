"""An owner that answers by itself, without bus and workers: to test the HTTP surface and to measure its cost alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from brigade.core.answer import AcceptedTokens, AnswerSink
from brigade.core.errors import BrigadeError, Unavailable
from brigade.core.request import RequestSpec
from brigade.core.step import Sampled

Script = Callable[[RequestSpec], Iterable[Sampled | BrigadeError]]
"""What to answer: tokens in order; an error ends the answer with it, the end of the tokens with 'length'."""


def echo_script(spec: RequestSpec) -> Iterator[Sampled]:
    """Repeat the prompt's tokens until the answer is full, with made-up log-probabilities where they are asked for."""
    wanted = spec.sampling.num_logprobs
    for index in range(spec.stop.max_tokens):
        token_id = spec.prompt_token_ids[index % len(spec.prompt_token_ids)]
        if wanted is None:
            yield Sampled(token_id=token_id)
        else:
            top = tuple((token_id + rank, -0.5 - rank) for rank in range(wanted))
            yield Sampled(token_id=token_id, logprob=-0.5, top=top)


def wait_after(num_items: int, gate: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """Return a pace that lets `num_items` items pass and holds all others until the gate opens."""
    num_left = num_items

    async def pace() -> None:
        nonlocal num_left
        if num_left == 0:
            await gate.wait()
        num_left = max(0, num_left - 1)

    return pace


class EchoOwner:
    """Implements Owner. `pace` is awaited before each item of each script; `why_not_ready` can be set at any time."""

    def __init__(self, script: Script = echo_script, *, pace: Callable[[], Awaitable[None]] | None = None) -> None:
        self._script = script
        self._pace = pace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.why_not_ready: str | None = None
        self.submitted: list[RequestSpec] = []
        self.cancelled: list[str] = []

    def submit(self, specs: Sequence[RequestSpec], sinks: Sequence[AnswerSink]) -> None:
        if self.why_not_ready is not None:
            raise Unavailable(self.why_not_ready, retry_after_s=2.0)
        assert len({spec.request_id for spec in specs} - self._tasks.keys()) == len(sinks)
        for spec, sink in zip(specs, sinks, strict=True):
            self.submitted.append(spec)
            self._tasks[spec.request_id] = asyncio.create_task(self._answer(spec, sink))

    def cancel(self, request_id: str) -> None:
        task = self._tasks.pop(request_id, None)
        if task is not None:
            self.cancelled.append(request_id)
            task.cancel()

    @property
    def num_unfinished(self) -> int:
        return len(self._tasks)

    def is_ready(self) -> str | None:
        return self.why_not_ready

    async def close(self) -> None:
        """End all answers."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, spec: RequestSpec, sink: AnswerSink) -> None:
        try:
            await self._drive(spec, sink)
        except BrigadeError as error:
            sink.on_error(error)
        finally:
            self._tasks.pop(spec.request_id, None)

    async def _drive(self, spec: RequestSpec, sink: AnswerSink) -> None:
        """Feed tokens until the answer ends; the last token is known only when the script has ended."""
        last: Sampled | None = None
        index = 0
        for token in self._script(spec):
            await (self._pace() if self._pace is not None else asyncio.sleep(0))
            if isinstance(token, BrigadeError):
                raise token
            reason = spec.stop.finish_reason(index + 1, token.token_id)
            accepted = AcceptedTokens(offset=index, tokens=(token,), finish_reason=reason)
            if sink.on_tokens(accepted) is not None or reason is not None:
                return
            last, index = token, index + 1
        raise AssertionError(f"the script of {spec.request_id} ended after {index} tokens, last {last}")
