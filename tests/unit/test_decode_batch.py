"""The running batch gives up every block, however it ends."""

from __future__ import annotations

from pathlib import Path

from support.emulated_cluster import make_spec
from test_kv_pool import open_pool

from brigade.bus.decode_stream import ReceivedJob
from brigade.core.kv import KVHandle
from brigade.core.messages import DecodeJob
from brigade.kv.pool import KVPool
from brigade.runtime.bell import Bell
from services.decode.batch import DecodeBatch
from services.decode.outbox import Outbox
from services.decode.sequence import DecodeSequence


def running(pool: KVPool) -> DecodeSequence:
    """A sequence of one block and a promise of another."""
    handle = KVHandle(
        transport="shm", location="/nowhere", incarnation="i", worker_id="w", blocks=((0, 1),), num_tokens=2,
        block_size_tokens=pool.block_size_tokens, block_bytes=1, dtype="float32", layout="l", model_revision="r",
    )  # fmt: skip
    job = DecodeJob(request_id="r", attempt=1, epoch=1, output_token_ids=(5,), handle=handle)
    received = ReceivedJob(entry_id="1-1", job=job, spec=make_spec("r", [1, 2], max_tokens=4), owner="o")
    sequence = DecodeSequence.of(received, block_size_tokens=pool.block_size_tokens, revision="r")
    sequence.promise = pool.ledger.reserve(2)
    sequence.blocks = sequence.promise.draw(1)
    return sequence


def test_what_was_dropped_during_a_step_that_never_ends_is_given_up_too(tmp_path: Path) -> None:
    """The step loop is cancelled with its step in the engine: nobody takes the results any more."""
    with open_pool(tmp_path, "w") as pool:
        outbox = Outbox(None, max_tokens=8, bell=Bell(), step_bell=Bell())  # type: ignore[arg-type]
        batch = DecodeBatch(pool, outbox)
        batch.add(running(pool))
        assert len(batch.collect()) == 1
        batch.drop([("r", 1)])
        assert not pool.ledger.is_idle, "the step still uses its blocks"
        batch.clear()
