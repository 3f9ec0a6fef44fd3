"""Which worker decodes a prefilled request."""

from __future__ import annotations

from typing import Any

from brigade.core.messages import Role, WorkerStatus, WorkerView
from brigade.policies.placement import Handed, PlacementView, choose_decode_worker


def worker(name: str, role: Role = Role.DECODE, *, accepting: bool = True, epoch: int = 1, **status: Any) -> WorkerView:
    values: dict[str, Any] = {"num_blocks": 64, "block_size_tokens": 16, "num_free_blocks": 64, "max_num_seqs": 8}
    fixed: dict[str, Any] = {"worker_id": name, "host": "h", "pid": 1, "model": "m", "model_revision": "r1"}
    return WorkerView(
        worker_id=name,
        role=role,
        epoch=epoch,
        accepting=accepting,
        status=WorkerStatus(**{**fixed, **values, **status}),
    )


def view(*workers: WorkerView, **changes: Any) -> PlacementView:
    values: dict[str, Any] = {"self_id": "p", "model_revision": "r1", "num_total_tokens": 160}
    return PlacementView(workers=workers, **{**values, **changes})


def test_only_living_accepting_decoders_of_the_same_weights_are_asked() -> None:
    """A hand-over to any other would be refused by the script, or could not be read."""
    workers = (
        worker("prefills", Role.PREFILL),
        worker("draining", accepting=False),
        worker("other-weights", model_revision="r2"),
        worker("too-small", num_blocks=9, num_free_blocks=9),
        worker("refused"),
        WorkerView(worker_id="dead"),
    )
    placement = choose_decode_worker(view(*workers, refused=frozenset({"refused"})))
    assert placement.worker_id is None
    good = worker("good", epoch=7, num_decoding=7, num_free_blocks=1)
    placement = choose_decode_worker(view(*workers, good, refused=frozenset({"refused"})))
    assert (placement.worker_id, placement.epoch) == ("good", 7)


def test_own_kv_stays_where_it_is() -> None:
    """A mixed worker transfers nothing, however busy it is."""
    busy_self = worker("p", Role.MIXED, num_decoding=8, num_free_blocks=0)
    assert choose_decode_worker(view(busy_self, worker("idle"))).worker_id == "p"


def test_room_comes_before_few_requests() -> None:
    """A nearly full pool with few long requests is worse than a busy one with room."""
    full = worker("full", num_decoding=1, num_free_blocks=20, num_reserved_blocks=15)
    roomy = worker("roomy", num_decoding=5)
    assert choose_decode_worker(view(full, roomy)).worker_id == "roomy"


def test_what_was_handed_out_since_the_last_look_counts() -> None:
    """Or everything prefilled between two heartbeats would go to one worker."""
    a, b = worker("a", num_decoding=1), worker("b", num_decoding=2)
    assert choose_decode_worker(view(a, b)).worker_id == "a"
    handed = {"a": Handed(num_requests=2, num_blocks=20)}
    assert choose_decode_worker(view(a, b, handed=handed)).worker_id == "b"


def test_when_all_are_full_the_least_busy_gets_it() -> None:
    """It waits in that worker's stream."""
    a = worker("a", num_decoding=8, num_free_blocks=0)
    b = worker("b", num_decoding=5, num_free_blocks=0)
    placement = choose_decode_worker(view(a, b))
    assert (placement.worker_id, placement.reason) == ("b", "least busy, all are full")
