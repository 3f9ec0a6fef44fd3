"""What /admin shows, read from Redis at each call: the same answer from every router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from brigade.bus.client import Bus
from brigade.bus.inspect import queue_depths, request_record
from brigade.bus.leadership import post_intent
from brigade.bus.registry import list_workers
from brigade.core.errors import InvalidRequest
from brigade.core.messages import Role, RoleIntent, WorkerView
from brigade.policies.role_intents import Verdict, decide_intent, is_flipping
from services.router.contracts import RoleRefused, UnknownWorker

INTENT_WAIT_S = 3.0
"""How long an answer waits for the leading balancer to write the role."""

_TIMELINE = ("t_queued", "t_claimed", "t_handed", "t_admitted", "t_ended")


class RedisAdmin:
    """Implements services.router.contracts.AdminSource."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def queues(self) -> Mapping[str, Any]:
        depths = await queue_depths(self._bus)
        return {
            "queues": [asdict(depth) for depth in depths],
            "num_waiting": sum(d.num_waiting for d in depths),
            "num_waiting_tokens": sum(d.num_waiting_tokens for d in depths),
            "num_prefilling": sum(d.num_prefilling for d in depths),
        }

    async def workers(self) -> Sequence[Mapping[str, Any]]:
        return [_worker_view(worker) for worker in await list_workers(self._bus)]

    async def request(self, request_id: str) -> Mapping[str, Any] | None:
        record = await request_record(self._bus, request_id)
        if record is None:
            return None
        arrival_s = float(record["arrival"]) if "arrival" in record else None
        timeline = {"received": arrival_s} | {n.removeprefix("t_"): float(record[n]) for n in _TIMELINE if n in record}
        return {
            "id": request_id,
            "state": record["state"],
            "attempt": int(record["attempt"]),
            "priority_class": record.get("class"),
            "num_prompt_tokens": int(record["nprompt"]) if "nprompt" in record else None,
            "router": record.get("owner"),
            "prefill_worker": record.get("prefiller") or None,
            "holder": record.get("holder") or None,
            "reason": record.get("reason") or None,
            "timeline": timeline,
        }

    async def set_role(self, worker_id: str, role: str) -> Mapping[str, Any]:
        try:
            wanted = Role(role)
        except ValueError:
            raise InvalidRequest(f"role must be one of {', '.join(Role)}, not {role!r}", field="role") from None
        intent = RoleIntent(worker_id=worker_id, role=wanted, reason="asked for by an operator")
        decision = decide_intent(await list_workers(self._bus), intent)
        if decision.verdict is Verdict.UNKNOWN:
            raise UnknownWorker(decision.reason)
        if decision.verdict is Verdict.REFUSED:
            raise RoleRefused(decision.reason)
        await post_intent(self._bus, intent)
        deadline_s = time.monotonic() + INTENT_WAIT_S
        while time.monotonic() < deadline_s:
            worker = next((w for w in await list_workers(self._bus) if w.worker_id == worker_id), None)
            if worker is None:
                raise UnknownWorker(f"worker {worker_id!r} has gone")
            if worker.role is wanted or (worker.desired_role is wanted and is_flipping(worker)):
                return _worker_view(worker)
            await asyncio.sleep(0.05)
        return {"worker_id": worker_id, "wished_role": wanted, "note": "no balancer has taken the wish up yet"}


def _worker_view(worker: WorkerView) -> dict[str, Any]:
    view: dict[str, Any] = {
        "worker_id": worker.worker_id,
        "alive": worker.is_alive,
        "role": worker.role,
        "epoch": worker.epoch,
        "accepting": worker.accepting,
        "desired_role": worker.desired_role,
        "desired_epoch": worker.desired_epoch,
    }
    return view | (asdict(worker.status) if worker.status else {})
