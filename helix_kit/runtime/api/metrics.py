"""Prometheus metrics: counters of the API, and the status of the engine at the moment of each scrape.

What vLLM's server measures in the same way is also there under vLLM's names, with its labels and buckets, so that
dashboards made for vLLM show this server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from helix_kit.metrics import RequestTimes
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.status import EngineStatus
from helix_kit.workload.request import RequestRecord

BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
                  640, 2560)  # fmt: skip
TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
REQUEST_BUCKETS_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
"""vLLM's buckets, as of version 0.15."""
LABELS = ("model_name", "engine")
"""vLLM's labels; the engine is always 0, since one engine answers all requests."""


class EngineCollector(Collector):
    """`Engine.status` as gauges and counters."""

    def __init__(self, engine: Engine, model_name: str) -> None:
        self._engine, self._labels = engine, [model_name, "0"]

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment; none when the engine is closed."""
        try:
            status = self._engine.status()
        except EngineError:
            return
        yield GaugeMetricFamily("helix_kit_requests_waiting", "Requests not started yet", value=status.waiting)
        yield GaugeMetricFamily("helix_kit_requests_running", "Requests on a pipeline", value=status.running)
        yield GaugeMetricFamily(
            "helix_kit_flow_tokens_per_second", "Flow of the plan over live workers", value=status.flow_tokens_per_s
        )
        yield CounterMetricFamily("helix_kit_workers_lost", "Workers lost so far", value=len(status.losses))
        yield CounterMetricFamily("helix_kit_generated_tokens", "Tokens generated", value=status.tokens_out)
        up = GaugeMetricFamily("helix_kit_worker_up", "1 while the node's worker serves", labels=["node"])
        pages = GaugeMetricFamily("helix_kit_kv_pages_used", "KV pages held by requests", labels=["node"])
        cached = GaugeMetricFamily("helix_kit_kv_pages_cached", "KV pages cached that no request uses", labels=["node"])
        capacity = GaugeMetricFamily("helix_kit_kv_pages", "KV pages of the worker", labels=["node"])
        steps = CounterMetricFamily("helix_kit_worker_steps", "Steps run", labels=["node"])
        overruns = CounterMetricFamily("helix_kit_worker_overruns", "Paced steps that took too long", labels=["node"])
        busy = CounterMetricFamily("helix_kit_worker_busy_seconds", "Time in steps", labels=["node"])
        for name, worker in status.workers.items():
            up.add_metric([name], 1.0 if worker.state == "up" else 0.0)
            pages.add_metric([name], worker.pages_used)
            cached.add_metric([name], worker.pages_cached)
            capacity.add_metric([name], worker.pages)
            steps.add_metric([name], worker.steps)
            overruns.add_metric([name], worker.overruns)
            busy.add_metric([name], worker.busy_s)
        yield from (up, pages, cached, capacity, steps, overruns, busy)
        yield from self._as_vllm(status)

    def _as_vllm(self, status: EngineStatus) -> Iterable[Metric]:
        """Running and waiting requests, KV use and tokens under vLLM's names."""
        held = sum(worker.pages for worker in status.workers.values() if worker.state == "up")
        used = sum(worker.pages_used for worker in status.workers.values() if worker.state == "up")
        for kind, name, told, value in (
            (GaugeMetricFamily, "vllm:num_requests_running", "Requests on a pipeline", status.running),
            (GaugeMetricFamily, "vllm:num_requests_waiting", "Requests not started yet", status.waiting),
            (GaugeMetricFamily, "vllm:kv_cache_usage_perc", "KV pages in use, 1 is all", used / held if held else 0.0),
            (CounterMetricFamily, "vllm:generation_tokens", "Tokens generated", status.tokens_out),
            (CounterMetricFamily, "vllm:prefix_cache_queries", "Prompt tokens looked up", status.prompt_tokens),
            (CounterMetricFamily, "vllm:prefix_cache_hits", "Prompt tokens found", status.cached_tokens),
        ):
            family = kind(name, told, labels=LABELS)
            family.add_metric(self._labels, value)
            yield family


class ApiMetrics:
    """The metrics of one application, in a registry of its own, so that several may run in one process."""

    def __init__(self, engine: Engine, model_name: str = "") -> None:
        name = model_name or engine.plan.model.name
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(engine, name))
        self.requests = Counter(
            "helix_kit_http_requests", "HTTP requests by path and status", ["path", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("helix_kit_prompt_tokens", "Tokens of prompts", registry=self.registry)
        self.first_token = Histogram(
            "helix_kit_time_to_first_token_seconds", "Arrival to first token", buckets=BUCKETS_S, registry=self.registry
        )
        self.whole_request = Histogram(
            "helix_kit_request_seconds", "Arrival to last token", buckets=BUCKETS_S, registry=self.registry
        )

        def as_vllm(metric: str, description: str, buckets: Sequence[float]) -> Histogram:
            family = Histogram(f"vllm:{metric}", description, LABELS, buckets=buckets, registry=self.registry)
            return family.labels(name, "0")

        self.ttft = as_vllm("time_to_first_token_seconds", "Arrival to first token", TTFT_BUCKETS_S)
        self.itl = as_vllm("inter_token_latency_seconds", "Gaps between tokens", TOKEN_BUCKETS_S)
        self.tpot = as_vllm("request_time_per_output_token_seconds", "Mean gap of a request", TOKEN_BUCKETS_S)
        self.e2el = as_vllm("e2e_request_latency_seconds", "Arrival to last token", REQUEST_BUCKETS_S)
        self.queue = as_vllm("request_queue_time_seconds", "Arrival to the start on a pipeline", REQUEST_BUCKETS_S)
        self.prompts = Counter("vllm:prompt_tokens", "Tokens of prompts", LABELS, registry=self.registry)
        self._labels = (name, "0")

    def observe(self, record: RequestRecord) -> None:
        """Add a request that has ended."""
        tokens_in, times = record.request.input_tokens, RequestTimes.of([record])
        self.prompt_tokens.inc(tokens_in)
        self.prompts.labels(*self._labels).inc(tokens_in)
        if record.started_s is not None:
            self.queue.observe(float(times.queue_s[0]))
        if record.first_token_s is not None:
            self.first_token.observe(float(times.ttft_s[0]))
            self.ttft.observe(float(times.ttft_s[0]))
            for earlier_s, later_s in pairwise(record.token_times_s):
                self.itl.observe(later_s - earlier_s)
        if record.outcome == "finished" and record.finished_s is not None:
            self.whole_request.observe(float(times.e2el_s[0]))
            self.e2el.observe(float(times.e2el_s[0]))
            if record.tokens_generated > 1:
                self.tpot.observe(float(times.tpot_s[0]))
