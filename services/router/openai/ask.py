"""What a client asks for, validated and complete, before it becomes requests."""

from __future__ import annotations

from dataclasses import dataclass

from brigade.core.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt. `text` is what the client wrote (None when it sent ids); `max_tokens` bounds this prompt's answers."""

    token_ids: tuple[int, ...]
    text: str | None
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRules:
    """When answers end before `max_tokens`. `strings` are watched by the router, the ids by the workers.

    `reported_token_ids` are those that the client itself named: the answer says which one ended it.
    """

    strings: tuple[str, ...] = ()
    token_ids: frozenset[int] = frozenset()
    reported_token_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    is_included: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the answer is to be presented."""

    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    echo: bool = False
    return_token_ids: bool = False
    skip_special_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who comes first: the priority class, the order inside it (lower first), and the prefix-cache tenant."""

    priority_class: str
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One HTTP request for answers: len(prompts) * n branches, in this order.

    `sampling.seed` is that of each prompt's first branch; branch i of a prompt draws with seed + i.
    """

    prompts: tuple[Prompt, ...]
    n: int
    sampling: SamplingParams
    stop: StopRules
    shape: Shape
    standing: Standing

    @property
    def num_prompt_tokens(self) -> int:
        return sum(len(prompt.token_ids) for prompt in self.prompts)
