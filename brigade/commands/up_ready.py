"""Waits until a router says that it can serve, and tells the user what to type."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import aiohttp

from brigade.commands.up_plan import Plan
from brigade.core.config import RouterServiceConfig

_ASK_EVERY_S = 0.05
_ASK_TIMEOUT_S = 2.0
_REPORT_EVERY_S = 15.0


def base_url(router: RouterServiceConfig) -> str:
    """Return the URL at which this host reaches the router."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(router.host, router.host)
    return f"http://[{host}]:{router.port}" if ":" in host else f"http://{host}:{router.port}"


async def wait_until_ready(router: RouterServiceConfig, *, say: Callable[[str], None]) -> None:
    """Ask GET /ready until it answers 200, and say now and then what is missing. It has no deadline: big models load
    for minutes, and a process that cannot start ends the wait by its own error."""
    loop = asyncio.get_running_loop()
    said_s = loop.time()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)) as session:
        while True:
            try:
                async with session.get(f"{base_url(router)}/ready") as response:
                    if response.status == 200:
                        return
                    missing = (await response.text())[:200]
            except (aiohttp.ClientError, TimeoutError):
                missing = "the router does not answer yet"
            if loop.time() - said_s > _REPORT_EVERY_S:
                said_s = loop.time()
                say(f"still starting: {missing}")
            await asyncio.sleep(_ASK_EVERY_S)  # another process's readiness has no event to wait for


def greeting(plan: Plan) -> str:
    """Return what `brigade up` prints when it is ready."""
    router, up = plan.router, plan.up
    name = router.served_model_name or Path(router.model).resolve().name
    body = json.dumps({"model": name, "prompt": "Once upon a time", "max_tokens": 64, "stream": True})
    key = ' -H "Authorization: Bearer $BRIGADE_API_KEY"' if router.api_key else ""
    counts = {"prefill": up.num_prefill, "decode": up.num_decode, "mixed": up.num_mixed}
    workers = ", ".join(f"{count} {role}" for role, count in counts.items() if count)
    if plan.worker.emulate is not None:
        workers += f"; emulating {plan.worker.emulate}, {plan.worker.time_scale:g} times slower"
    return "\n".join(
        [
            f"brigade: ready at {base_url(router)} (model {name}; workers: {workers})",
            "Try:",
            f"  curl -N {base_url(router)}/v1/completions -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}",
            "Ctrl-C drains and stops everything.",
        ]
    )
