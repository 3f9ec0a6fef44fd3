"""The worker's page of metrics, read from the host at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.worker.host import WorkerHost


class WorkerMetrics(Collector):
    """What the worker's status says, and what only counts here. Empty while the worker is not registered."""

    def __init__(self, host: WorkerHost) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        life = self._host.life
        if life is None:
            return
        status = life.heartbeat.status()
        gauges = {
            "blocks": ("KV blocks of the pool", status.num_blocks),
            "free_blocks": ("KV blocks that no request holds", status.num_free_blocks),
            "lent_blocks": ("KV blocks that wait for their reader", status.num_lent_blocks),
            "reserved_blocks": ("KV blocks promised to admitted requests", status.num_reserved_blocks),
            "prefilling": ("requests being prefilled or handed over", status.num_prefilling),
            "prefill_tokens": ("tokens claimed and not yet computed", status.num_prefill_tokens),
            "waiting_decode": ("requests handed over and not yet in the batch", status.num_waiting_decode),
            "decoding": ("requests in the running batch", status.num_decoding),
            "role_epoch": ("epoch of the present role", life.roles.epoch),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"brigade_worker_{name}", text, value=value)
        counters = {
            "steps": ("engine steps under this registration", life.num_steps),
            "evicted_blocks": ("cached KV blocks given up for others", life.num_evictions),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"brigade_worker_{name}", text, value=value)
