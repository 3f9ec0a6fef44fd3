"""One claimed prefill and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from brigade.bus.prefill_queue import ClaimedJob
from brigade.core.ledger import Reservation
from brigade.core.messages import AttemptKey
from brigade.core.prefix import block_hashes
from brigade.core.step import SampleRequest, Slice


@dataclass(slots=True, kw_only=True, eq=False)
class PrefillSequence:
    """The tokens to prefill (prompt, then accepted output of earlier attempts) and, once begun, their blocks.

    `hashes` name the full blocks; the first `num_cacheable` of them may come from the prefix cache: at least the last
    token is computed, or there would be no logits to draw from. `promise` is room for the answer where this worker decodes
    it too. A dropped sequence gives up its blocks when no step uses them any more.
    """

    claimed: ClaimedJob
    token_ids: list[int]
    hashes: list[bytes]
    num_cacheable: int
    blocks: list[int] = field(default_factory=list)
    promise: Reservation | None = None
    num_cached_tokens: int = 0
    num_computed_tokens: int = 0
    is_dropped: bool = False

    @classmethod
    def of(cls, claimed: ClaimedJob, *, block_size_tokens: int, revision: str) -> PrefillSequence:
        token_ids = [*claimed.spec.prompt_token_ids, *claimed.prefix]
        salt = claimed.spec.cache_salt.encode()
        return cls(
            claimed=claimed,
            token_ids=token_ids,
            hashes=block_hashes(token_ids, block_size_tokens, revision=revision, salt=salt),
            num_cacheable=(len(token_ids) - 1) // block_size_tokens,
        )

    @property
    def key(self) -> AttemptKey:
        return self.claimed.waiting.job.key

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_total_tokens(self) -> int:
        """Prompt and longest answer."""
        return self.claimed.spec.num_total_tokens

    @property
    def num_left_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def cacheable_hashes(self) -> list[bytes]:
        return self.hashes[: self.num_cacheable]

    def next_slice(self, max_tokens: int) -> Slice:
        """Return the next chunk, at most `max_tokens` long; the last one asks for the first token."""
        start = self.num_computed_tokens
        end = min(len(self.token_ids), start + max_tokens)
        is_last = end == len(self.token_ids)
        return Slice(
            token_ids=self.token_ids[start:end],
            num_context_tokens=start,
            block_table=self.blocks,
            sample=self._sample() if is_last else None,
        )

    def _sample(self) -> SampleRequest:
        spec, prefix = self.claimed.spec, self.claimed.prefix
        return SampleRequest(
            params=spec.sampling,
            index=len(prefix),
            prompt_token_ids=spec.prompt_token_ids,
            output_token_ids=prefix,
            banned_token_ids=spec.stop.banned_token_ids(len(prefix)),
        )
