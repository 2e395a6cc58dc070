"""Prometheus metrics: counters of the API, and the status of the engine at the moment of each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import EngineError
from helix_kit.workload.request import RequestRecord

BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class EngineCollector(Collector):
    """`Engine.status` as gauges and counters."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
        capacity = GaugeMetricFamily("helix_kit_kv_pages", "KV pages of the worker", labels=["node"])
        steps = CounterMetricFamily("helix_kit_worker_steps", "Steps run", labels=["node"])
        overruns = CounterMetricFamily("helix_kit_worker_overruns", "Paced steps that took too long", labels=["node"])
        busy = CounterMetricFamily("helix_kit_worker_busy_seconds", "Time in steps", labels=["node"])
        for name, worker in status.workers.items():
            up.add_metric([name], 1.0 if worker.state == "up" else 0.0)
            pages.add_metric([name], worker.pages_used)
            capacity.add_metric([name], worker.pages)
            steps.add_metric([name], worker.steps)
            overruns.add_metric([name], worker.overruns)
            busy.add_metric([name], worker.busy_s)
        yield from (up, pages, capacity, steps, overruns, busy)


class ApiMetrics:
    """The metrics of one application, in a registry of its own, so that several may run in one process."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(EngineCollector(engine))
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

    def observe(self, record: RequestRecord) -> None:
        """Add a request that has ended."""
        self.prompt_tokens.inc(record.request.input_tokens)
        if record.first_token_s is not None:
            self.first_token.observe(record.first_token_s - record.request.arrival_s)
        if record.outcome == "finished" and record.finished_s is not None:
            self.whole_request.observe(record.finished_s - record.request.arrival_s)
