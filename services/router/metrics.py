"""The router's page of metrics: names as vLLM has them where they mean the same, so that dashboards work unchanged."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.router.token_tally import TokenTally

_TTFT_BUCKETS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    120.0,
)
_ITL_BUCKETS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
    10.0,
)
_E2E_BUCKETS_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 960.0)
_MODEL = ("model_name",)


class RouterMetrics:
    """Counts what clients of one router saw. Everything lives in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry, *, model_name: str, now_s: Callable[[], float]) -> None:
        self.registry = registry
        self.now_s = now_s
        ttft = Histogram(
            "vllm:time_to_first_token_seconds",
            "Request received to first token accepted, seen by the router.",
            _MODEL,
            registry=registry,
            buckets=_TTFT_BUCKETS_S,
        )
        e2e = Histogram(
            "vllm:e2e_request_latency_seconds",
            "Request received to its last token, seen by the router.",
            _MODEL,
            registry=registry,
            buckets=_E2E_BUCKETS_S,
        )
        prompt = Counter("vllm:prompt_tokens", "Prompt tokens of accepted requests.", _MODEL, registry=registry)
        self.ttft_s = ttft.labels(model_name)
        self.e2e_s = e2e.labels(model_name)
        self.prompt_tokens = prompt.labels(model_name)
        self.tokens = TokenTally(model_name=model_name, gap_buckets_s=_ITL_BUCKETS_S)
        registry.register(self.tokens)
        self._finished = Counter(
            "vllm:request_success",
            "Ended answers by reason: stop, length, abort (the client left), error.",
            ("model_name", "finished_reason"),
            registry=registry,
        )
        self._http = Counter(
            "brigade:http_requests", "HTTP requests by route and status.", ("route", "status"), registry=registry
        )
        self._cut = Counter("brigade:clients_cut", "Clients cut off because they read too slowly.", registry=registry)
        running = Gauge("vllm:num_requests_running", "Requests being computed.", _MODEL, registry=registry)
        waiting = Gauge("vllm:num_requests_waiting", "Requests waiting for a worker.", _MODEL, registry=registry)
        self._running = running.labels(model_name)
        self._waiting = waiting.labels(model_name)
        self._model_name = model_name

    def set_load(self, *, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Have the two load gauges read from these when the page is asked for."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def on_finish(self, reason: str, e2e_s: float) -> None:
        self._finished.labels(self._model_name, reason).inc()
        if reason in ("stop", "length"):
            self.e2e_s.observe(e2e_s)

    def on_response(self, route: str, status: int) -> None:
        self._http.labels(route, str(status)).inc()

    def on_client_cut(self) -> None:
        self._cut.inc()


class BranchMeter:
    """Takes the times of one branch. `received_s` is when its HTTP request came in, on the metrics' clock."""

    __slots__ = ("_last_s", "_metrics", "_received_s")

    def __init__(self, metrics: RouterMetrics, received_s: float) -> None:
        self._metrics = metrics
        self._received_s = received_s
        self._last_s: float | None = None

    def on_tokens(self, num_tokens: int) -> None:
        metrics = self._metrics
        now_s = metrics.now_s()
        if self._last_s is None:
            metrics.ttft_s.observe(now_s - self._received_s)
            metrics.tokens.add(num_tokens, num_tokens - 1, 0.0)
        else:
            metrics.tokens.add(num_tokens, num_tokens, (now_s - self._last_s) / num_tokens)
        self._last_s = now_s

    def on_finish(self, reason: str) -> None:
        self._metrics.on_finish(reason, self._metrics.now_s() - self._received_s)
