"""Requests that can never be served here: kept for inspection, and their owner told."""

from __future__ import annotations

import structlog

from brigade.bus.client import Bus
from brigade.bus.decode_stream import DecodeStream, StepFrame
from brigade.bus.frames import bury
from brigade.bus.prefill_queue import ClaimedJob
from brigade.core.messages import PullFailed
from brigade.runtime.retry import until_answered

PUBLISH_TIMEOUT_S = 5.0


class Refusing:
    """Says no to a claimed job. Its entry stays until the owner's next attempt, or its verdict, drops it."""

    def __init__(self, bus: Bus, frames: DecodeStream) -> None:
        self._bus = bus
        self._frames = frames

    async def refuse(self, claimed: ClaimedJob, reason: str) -> None:
        """Write the dead letter, then report the attempt as failed."""
        job = claimed.waiting.job
        structlog.get_logger().warning("prefill_refused", request_id=job.request_id, attempt=job.attempt, reason=reason)
        await until_answered(bury, self._bus, f"{claimed.waiting.stream} {job.request_id}", reason, b"")
        part = PullFailed(request_id=job.request_id, attempt=job.attempt, reason=reason)
        frames = {claimed.owner: StepFrame(parts=[part], finishes=[])}
        await until_answered(self._frames.publish, frames, timeout_s=PUBLISH_TIMEOUT_S)
