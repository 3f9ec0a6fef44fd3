"""What the system under load says of itself: whether it is emulated, how its steps last, how late its event loops are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from brigade.core.errors import ConfigError, Unavailable
from brigade.report.validity import ProcessLag

_LOOK_EVERY_S = 0.1
_LAG = re.compile(r"^brigade_loop_lag_(looks|seconds)_total (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Looks at one event loop since its process started."""

    num_looks: int
    total_lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemView:
    """One reading. `emulates` is empty for real engines; `loops` are the event loops by process;
    `said_at_s` is when each worker spoke, by its own clock."""

    emulates: str
    time_scale: float
    num_workers: int
    median_step_s: float
    loops: Mapping[str, Looks]
    said_at_s: Mapping[str, float]

    def lags_since(self, before: SystemView) -> list[ProcessLag]:
        """Return how late each process was since an earlier reading; one that is new or has gone has no looks."""
        lags = []
        for name in sorted({*self.loops, *before.loops}):
            if name not in self.loops or name not in before.loops:
                lags.append(ProcessLag(process=name, num_looks=0, mean_lag_s=0.0))
                continue
            now, then = self.loops[name], before.loops[name]
            num_looks = now.num_looks - then.num_looks
            mean_lag_s = (now.total_lag_s - then.total_lag_s) / num_looks if num_looks > 0 else 0.0
            lags.append(ProcessLag(process=name, num_looks=max(0, num_looks), mean_lag_s=mean_lag_s))
        return lags


async def look_at_system(session: aiohttp.ClientSession, url: str, *, admin_key: str | None) -> SystemView | None:
    """Read /admin/workers and /metrics; None for a server that has none of them: another's, then.

    Raises Unavailable when nothing answers, ConfigError when its workers pretend to be different things.
    """
    headers = {"Authorization": f"Bearer {admin_key}"} if admin_key else {}
    try:
        async with session.get(f"{url}/admin/workers", headers=headers) as response:
            if response.status in (401, 403):
                raise ConfigError(f"{url}/admin/workers asks for a key: give --admin-key")
            if response.status != 200:
                return None
            workers = [w for w in orjson.loads(await response.read())["workers"] if w["alive"]]
        async with session.get(f"{url}/metrics") as response:
            metrics = await response.text() if response.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"{url} does not answer: {error}", retry_after_s=1.0) from error
    return view_of(workers, metrics)


async def look_again(
    session: aiohttp.ClientSession, url: str, *, admin_key: str | None, timeout_s: float = 10.0
) -> SystemView | None:
    """Read until every worker has spoken after this call: what they said before leaves out the end of a run."""
    first = latest = await look_at_system(session, url, admin_key=admin_key)
    try:
        async with asyncio.timeout(timeout_s):
            while first is not None and latest is not None:
                if all(
                    latest.said_at_s[name] > said_s
                    for name, said_s in first.said_at_s.items()
                    if name in latest.said_at_s
                ):
                    break
                await asyncio.sleep(_LOOK_EVERY_S)  # another process's heartbeat has no event to wait for
                latest = await look_at_system(session, url, admin_key=admin_key)
    except TimeoutError:
        return latest  # a worker that does not speak any more has no new looks, which makes the run invalid
    return latest


def view_of(workers: list[dict[str, Any]], router_metrics: str) -> SystemView:
    """Put one reading together. Raises ConfigError when workers are not all of the same time scale, or partly emulated."""
    pretended = {(bool(w["emulates"]), w["time_scale"]) for w in workers}
    if len(pretended) > 1:
        raise ConfigError("the workers do not agree: some are emulated and some are not, or their time scales differ")
    loops = {
        f"worker process {w['pid']} on {w['host']}": Looks(num_looks=w["num_lag_looks"], total_lag_s=w["total_lag_s"])
        for w in workers
    }
    counters = dict(_LAG.findall(router_metrics))
    if "looks" in counters:
        loops["router"] = Looks(num_looks=int(float(counters["looks"])), total_lag_s=float(counters["seconds"]))
    return SystemView(
        emulates=", ".join(sorted({w["emulates"] for w in workers if w["emulates"]})),
        time_scale=workers[0]["time_scale"] if workers else 1.0,
        num_workers=len(workers),
        # The strictest: the worker with the shortest steps.
        median_step_s=min((w["median_step_s"] for w in workers if w["median_step_s"]), default=0.0),
        loops=loops,
        said_at_s={w["worker_id"]: w["sent_s"] for w in workers},
    )
