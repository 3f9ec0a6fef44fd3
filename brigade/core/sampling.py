"""How tokens are drawn and when an answer ends. Values are already validated and complete: no field means "default"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one token is drawn from its logits.

    Order of application, as vLLM: penalties, banned ids, temperature, min_p, top_k, top_p.
    `temperature` 0 means greedy (lowest id wins an exact tie). `top_k` 0, `top_p` 1 and `min_p` 0 switch a filter off.
    `seed` is always set (the router draws one when the client gives none): token i of an answer depends on the logits,
    `seed` and i alone, never on batch neighbours, so a crash or a move to another worker keeps the draw.
    `num_logprobs` None means none, 0 the chosen token's only, k the k most likely too. Log-probabilities are those of
    the unmodified logits (before penalties and temperature).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    num_logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0 or self.repetition_penalty != 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopParams:
    """When an answer ends at the worker. Stop strings end it at the router, which alone sees text.

    `stop_token_ids` holds the model's end ids too unless the client asked to ignore them. Before `min_tokens` tokens
    are out, those ids cannot be drawn.
    """

    max_tokens: int
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()

    def finish_reason(self, num_output_tokens: int, last_token_id: int) -> str | None:
        """Return why the answer ends with its `num_output_tokens`-th token, or None when it goes on."""
        if last_token_id in self.stop_token_ids and num_output_tokens > self.min_tokens:
            return "stop"
        return "length" if num_output_tokens >= self.max_tokens else None

    def banned_token_ids(self, index: int) -> frozenset[int]:
        """Return the ids that the token at offset `index` of the answer may not be."""
        return self.stop_token_ids if index < self.min_tokens else frozenset()
