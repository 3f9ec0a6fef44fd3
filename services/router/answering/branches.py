"""From an ask to its branches: the specs that the owner takes, the sinks of the answers, and when all have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from brigade.core.errors import BrigadeError
from brigade.core.request import RequestSpec
from brigade.core.sampling import StopParams
from services.router.answering.branch import BranchAnswer
from services.router.answering.part import Part
from services.router.metrics import BranchMeter, RouterMetrics
from services.router.openai.ask import Ask, Prompt
from services.router.openai.common_fields import branch_seed
from services.router.openai.reply import usage_of
from services.router.text.tokenizer import ModelTokenizer


class Collector(Protocol):
    """Gathers the parts of all branches into one reply. Called from the event loop; must not block."""

    def on_part(self, index: int, part: Part, usage: dict[str, Any] | None) -> None:
        """Take the next part of choice `index`, with that choice's usage where every chunk is to state it."""

    def on_end(self, usage: dict[str, Any]) -> None:
        """All choices are complete."""

    def on_error(self, error: BrigadeError) -> None:
        """One choice failed, and the reply with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One choice of the reply: the request behind it and the sink of its answer."""

    prompt: Prompt
    spec: RequestSpec
    answer: BranchAnswer


class Branches:
    """All branches of one ask, in the order of their choices."""

    def __init__(
        self,
        ask: Ask,
        *,
        reply_id: str,
        arrival_s: float,
        received_s: float,
        tokenizer: ModelTokenizer,
        metrics: RouterMetrics,
        collector: Collector,
    ) -> None:
        """`arrival_s` is on the wall clock, `received_s` on the metrics' clock."""
        self._ask = ask
        self._tokenizer = tokenizer
        self._collector = collector
        self.all: list[Branch] = []
        choices = [(prompt, place) for prompt in ask.prompts for place in range(ask.n)]
        for index, (prompt, place) in enumerate(choices):
            request_id = reply_id if len(choices) == 1 else f"{reply_id}/{index}"
            answer = BranchAnswer(
                detokenizer=tokenizer.detokenizer(prompt.token_ids, skip_special_tokens=ask.shape.skip_special_tokens),
                stop=ask.stop,
                wants_tokens=ask.shape.return_token_ids or ask.sampling.num_logprobs is not None,
                meter=BranchMeter(metrics, received_s),
                emit=partial(self._on_part, index),
                fail=collector.on_error,
            )
            self.all.append(Branch(prompt=prompt, spec=_spec(ask, prompt, place, request_id, arrival_s), answer=answer))
        self._num_unfinished = len(self.all)
        self._to_echo = set(range(len(self.all))) if ask.shape.echo else set()

    @property
    def specs(self) -> Sequence[RequestSpec]:
        return [branch.spec for branch in self.all]

    @property
    def sinks(self) -> Sequence[BranchAnswer]:
        return [branch.answer for branch in self.all]

    def abandon(self) -> list[str]:
        """Want nothing more. Returns the ids of the requests that had not ended."""
        unfinished = [branch for branch in self.all if not branch.answer.is_finished]
        for branch in unfinished:
            branch.answer.abandon()
        return [branch.spec.request_id for branch in unfinished]

    def _on_part(self, index: int, part: Part) -> None:
        if index in self._to_echo:
            self._to_echo.remove(index)
            part.text = self._prompt_text(self.all[index].prompt) + part.text
        usage = self._choice_usage(index) if self._ask.shape.continuous_usage else None
        self._collector.on_part(index, part, usage)
        if part.finish_reason is not None:
            self._num_unfinished -= 1
            if self._num_unfinished == 0:
                self._collector.on_end(self._usage())

    def _prompt_text(self, prompt: Prompt) -> str:
        if prompt.text is not None:
            return prompt.text
        return self._tokenizer.decode(prompt.token_ids, skip_special_tokens=self._ask.shape.skip_special_tokens)

    def _usage(self) -> dict[str, Any]:
        """Return the usage of the whole ask; of branches that share a prompt the first says what was cached."""
        return usage_of(
            self._ask.num_prompt_tokens,
            sum(branch.answer.num_tokens for branch in self.all),
            sum(branch.answer.num_cached_tokens for branch in self.all[:: self._ask.n]),
        )

    def _choice_usage(self, index: int) -> dict[str, Any]:
        branch = self.all[index]
        return usage_of(len(branch.prompt.token_ids), branch.answer.num_tokens, branch.answer.num_cached_tokens)


def _spec(ask: Ask, prompt: Prompt, place: int, request_id: str, arrival_s: float) -> RequestSpec:
    return RequestSpec(
        request_id=request_id,
        prompt_token_ids=prompt.token_ids,
        sampling=replace(ask.sampling, seed=branch_seed(ask.sampling.seed, place)),
        stop=StopParams(
            max_tokens=prompt.max_tokens, min_tokens=ask.stop.min_tokens, stop_token_ids=ask.stop.token_ids
        ),
        priority_class=ask.standing.priority_class,
        priority=ask.standing.priority,
        arrival_s=arrival_s,
        cache_salt=ask.standing.cache_salt,
    )
