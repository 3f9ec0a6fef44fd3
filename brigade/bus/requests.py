"""The owner's side of a request's record: submit, raise, conclude, watch. See docs/protocol.md for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brigade.bus.client import Bus
from brigade.bus.codec import encode_prefill_job, encode_spec, pack_token_ids
from brigade.bus.keys import stream_name
from brigade.core.errors import BusError
from brigade.core.messages import PrefillJob
from brigade.core.request import RequestSpec, RequestState, length_band


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a request stands by its record. `state` None: there is no record. `holder_alive` is true without a holder."""

    state: RequestState | None
    attempt: int
    holder: str
    holder_alive: bool


def prefill_job(spec: RequestSpec, attempt: int, num_prefix_tokens: int) -> PrefillJob:
    """Return the queue header of an attempt."""
    return PrefillJob(
        request_id=spec.request_id,
        attempt=attempt,
        priority_class=spec.priority_class,
        priority=spec.priority,
        num_prompt_tokens=len(spec.prompt_token_ids),
        num_prefix_tokens=num_prefix_tokens,
        max_tokens=spec.stop.max_tokens,
        arrival_s=spec.arrival_s,
    )


class LeaseLapsed(BusError):
    """The router's own heartbeat is not there; nothing was recorded. It renews its lease and asks again."""


class RequestStore:
    """Moves that only the owner of requests makes."""

    def __init__(self, bus: Bus, router_id: str, *, record_ttl_s: float) -> None:
        self._bus = bus
        self._router = router_id
        self._ttl_ms = int(record_ttl_s * 1000)

    async def submit(self, specs: Sequence[RequestSpec]) -> None:
        """Record new requests and queue them at attempt 1, all or none. Raises BusError; may then have been executed."""
        args: list[bytes | str | int | float] = [self._router]
        for spec in specs:
            stream = stream_name(spec.priority_class, spec.band)
            args += [spec.request_id, encode_spec(spec), spec.priority_class, stream, spec.arrival_s]
            args += [len(spec.prompt_token_ids), encode_prefill_job(prefill_job(spec, 1, 0))]
        answer = await self._bus.run("submit", *args)
        if answer == b"NO_OWNER":
            raise LeaseLapsed("submit refused: NO_OWNER (this router's heartbeat is not there)")
        if answer != b"OK":
            raise BusError(f"submit refused: {answer.decode()}")

    async def raise_attempt(
        self, spec: RequestSpec, *, believed: int, new: int, prefix: Sequence[int], force: bool
    ) -> str:
        """Start attempt `new` from prompt + `prefix`. Returns RAISED, ALREADY, a terminal state, MISSING, NOT_OWNER, AHEAD,
        or NO_OWNER (this router is not registered: it registers first). Raises BusError; sending again is safe."""
        num_tokens = len(spec.prompt_token_ids) + len(prefix)
        answer = await self._bus.run(
            "raise",
            self._router,
            spec.request_id,
            believed,
            new,
            int(force),
            encode_spec(spec),
            spec.priority_class,
            stream_name(spec.priority_class, length_band(num_tokens)),
            spec.arrival_s,
            len(spec.prompt_token_ids),
            pack_token_ids(prefix),
            encode_prefill_job(prefill_job(spec, new, len(prefix))),
        )
        return str(answer.decode())

    async def conclude(self, request_id: str, *, attempt: int, state: RequestState, reason: str) -> str:
        """End a request from the owner's side. Returns the state that holds now, or NOT_OWNER."""
        assert state.is_terminal
        answer = await self._bus.run("conclude", self._router, request_id, attempt, state, reason, self._ttl_ms)
        return str(answer.decode())

    async def standings(self, request_ids: Sequence[str]) -> list[Standing]:
        """Return where requests stand and whether their holders live."""
        if not request_ids:
            return []
        answers = await self._bus.run("holders", *request_ids)
        return [
            Standing(
                state=RequestState(state.decode()) if state else None,
                attempt=attempt,
                holder=holder.decode(),
                holder_alive=bool(alive),
            )
            for state, attempt, holder, alive in answers
        ]

    async def heartbeat(self, *, ttl_s: float, status: bytes, first: bool) -> str:
        """Renew the router's lease. Returns OK or DRAINED."""
        answer = await self._bus.run(
            "router_heartbeat", self._router, int(ttl_s * 1000), status, int(first), timeout_s=ttl_s
        )
        return str(answer.decode())

    async def deregister(self) -> None:
        await self._bus.run("deregister", "router", self._router)
