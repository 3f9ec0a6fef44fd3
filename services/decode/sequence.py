"""One request that this worker decodes, or is about to."""

from __future__ import annotations

from dataclasses import dataclass, field

from brigade.bus.decode_stream import ReceivedJob
from brigade.core.ledger import Reservation
from brigade.core.messages import AttemptKey
from brigade.core.prefix import block_hashes, next_hash, root_hash
from brigade.core.step import SampleRequest, Slice


@dataclass(slots=True, kw_only=True, eq=False)
class DecodeSequence:
    """`output_token_ids` is the answer so far; the KV of its last token is not computed yet: it is the next slice's token.

    `hashes` name the full blocks of KV. `promise` is room for the rest of the answer, so growing cannot fail. A dropped
    sequence gives up its blocks when neither a step nor a copy uses them any more.
    """

    received: ReceivedJob
    key: AttemptKey
    output_token_ids: list[int]
    hashes: list[bytes]
    root: bytes
    blocks: list[int] = field(default_factory=list)
    promise: Reservation | None = None
    is_dropped: bool = False

    @classmethod
    def of(cls, received: ReceivedJob, *, block_size_tokens: int, revision: str) -> DecodeSequence:
        spec, output = received.spec, received.job.output_token_ids
        salt = spec.cache_salt.encode()
        token_ids = [*spec.prompt_token_ids, *output[:-1]]
        return cls(
            received=received,
            key=received.job.key,
            output_token_ids=list(output),
            hashes=block_hashes(token_ids, block_size_tokens, revision=revision, salt=salt),
            root=root_hash(revision, salt),
        )

    @property
    def num_kv_tokens(self) -> int:
        """Tokens whose KV is computed: all but the last."""
        return len(self.received.spec.prompt_token_ids) + len(self.output_token_ids) - 1

    def next_slice(self) -> Slice:
        """Return the next step's slice: one token in, one token asked for."""
        spec, output = self.received.spec, self.output_token_ids
        num_output = len(output)
        return Slice(
            token_ids=output[-1:],
            num_context_tokens=len(spec.prompt_token_ids) + num_output - 1,
            block_table=self.blocks,
            sample=SampleRequest(
                params=spec.sampling,
                index=num_output,
                prompt_token_ids=spec.prompt_token_ids,
                output_token_ids=output,
                banned_token_ids=spec.stop.banned_token_ids(num_output),
            ),
        )

    def hash_of_filled_block(self, block_size_tokens: int) -> bytes | None:
        """Return the hash of the block that the KV has just filled, or None when it ends inside one."""
        num_tokens = self.num_kv_tokens
        if num_tokens % block_size_tokens:
            return None
        prompt = self.received.spec.prompt_token_ids
        start = num_tokens - block_size_tokens
        token_ids = [
            *prompt[start:num_tokens],
            *self.output_token_ids[max(0, start - len(prompt)) : num_tokens - len(prompt)],
        ]
        self.hashes.append(next_hash(self.hashes[-1] if self.hashes else self.root, token_ids))
        return self.hashes[-1]
