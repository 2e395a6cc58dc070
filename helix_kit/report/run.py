"""A run, simulated or real: its records, and the throughput and latencies that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from helix_kit import _export, _tool_formats
from helix_kit._summary import Summarised, number
from helix_kit.metrics import SLO, Goodput, RequestTimes, describe, goodput_of, peak_concurrency, statistics
from helix_kit.report.use import Batch, LinkUse, NodeUse, TokenTimes
from helix_kit.workload.request import RequestRecord


class Run(Summarised):
    """The outcome of a simulation or of a real run.

    Parameters
    ----------
    records
        One for each request issued, whatever its outcome (invariant 1).
    window
        (start, end) in s on the run's clock: throughput and latencies count what ended within. None: from the first
        arrival to the last event. An engine's clock has run since its start, so 0 would count its idle time.
    tokens
        Token times where the records do not carry them themselves.
    nodes, links
        Use within the window, where known.
    batches
        Every step of every node, if recorded. `to_perfetto` needs them.
    kv_samples
        Node -> array of (time s, KV in use), shape (samples, 2), in `kv_unit`.
    kv_unit
        What KV use is counted in: pages or layer-tokens.
    partial
        Whether the run was stopped before its end.
    notes
        What a reader should know about the run.
    facts
        Provenance such as plan, policy, seed and versions. The summary contains it unchanged.

    Examples
    --------
    >>> from helix_kit.workload.request import Request, RequestRecord
    >>> record = RequestRecord(Request(0, 1.0, 10, 3), outcome="finished", first_token_s=1.5, finished_s=2.1,
    ...                        tokens_generated=3, token_times_s=[1.5, 1.7, 2.1])
    >>> run = Run([record], window=(0.0, 4.0))
    >>> run.summary()["finished"], run.latencies("prompt").tolist()
    (1, [0.5])
    """

    def __init__(
        self,
        records: Iterable[RequestRecord],
        *,
        window: tuple[float, float] | None = None,
        tokens: TokenTimes | None = None,
        nodes: Mapping[str, NodeUse] | None = None,
        links: Sequence[LinkUse] = (),
        batches: Iterable[Batch] = (),
        kv_samples: Mapping[str, np.ndarray] | None = None,
        kv_unit: str = "pages",
        partial: bool = False,
        notes: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.records = tuple(records)
        self._tokens = tokens
        self.nodes = dict(nodes or {})
        self.links = tuple(links)
        self.batches = tuple(batches)
        self.kv_samples = dict(kv_samples or {})
        self.kv_unit = kv_unit
        self.partial = partial
        self.notes = tuple(notes)
        self.facts = dict(facts or {})
        self.window = window if window is not None else self._whole_time()

    def _whole_time(self) -> tuple[float, float]:
        ends = [r.finished_s for r in self.records if r.finished_s is not None]
        arrivals = [r.request.arrival_s for r in self.records]
        last = self.tokens.time_s.max() if len(self.tokens.time_s) else 0.0
        return float(min(arrivals, default=0.0)), float(max([*ends, *arrivals, last], default=0.0))

    @cached_property
    def tokens(self) -> TokenTimes:
        """Token times, flat."""
        return TokenTimes.of(self.records) if self._tokens is None else self._tokens

    @property
    def window_s(self) -> float:
        """Length of the window."""
        return self.window[1] - self.window[0]

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(time, latency, whether it is the first token) of each token, ordered by request, then time."""
        order = np.lexsort((self.tokens.time_s, self.tokens.request))
        request, time = self.tokens.request[order], self.tokens.time_s[order]
        first = np.ones(len(request), dtype=bool)
        first[1:] = request[1:] != request[:-1]
        arrivals = np.array([r.request.arrival_s for r in self.records])
        before = np.empty_like(time)
        before[1:] = time[:-1]
        before[first] = arrivals[request[first]]
        return time, time - before, first

    def latencies(self, phase: str) -> np.ndarray:
        """Latencies in s that ended within the window: ``prompt`` (arrival to first token) or ``decode``."""
        time, latency, first = self._steps
        within = (time >= self.window[0]) & (time <= self.window[1])
        return latency[within & (first if phase == "prompt" else ~first)]

    @cached_property
    def times(self) -> RequestTimes:
        """Times of each request, in the order of the records."""
        return RequestTimes.of(self.records, np.bincount(self.tokens.request, minlength=len(self.records)))

    def measures(self) -> dict[str, np.ndarray]:
        """TTFT, TPOT, ITL, E2EL and queue time in s, by their keys in the summary: what ended within the window.

        `helix_kit.metrics.DEFINITIONS` defines them. TTFT is the paper's prompt latency, ITL its decode latency.
        """
        within = self.times.within(self.window)
        return {
            "ttft_s": self.latencies("prompt"),
            "tpot_s": within["tpot_s"],
            "itl_s": self.latencies("decode"),
            "e2el_s": within["e2el_s"],
            "queue_s": within["queue_s"],
        }

    def goodput(self, slo: SLO) -> Goodput:
        """Requests/s and tokens/s that keep the limits of `slo`, and the share of requests that do."""
        time_s = self.tokens.time_s
        within = self.tokens.request[(time_s >= self.window[0]) & (time_s <= self.window[1])]
        counts = np.bincount(within, minlength=len(self.records))
        return goodput_of(self.times, counts, self.window, slo)

    def _per_s(self, amount: float) -> float:
        return float(amount / self.window_s) if self.window_s > 0 else 0.0

    def summary(self, slo: SLO | None = None) -> dict[str, Any]:
        """The run in numbers, ready for JSON; with `slo`, also its goodput.

        `decode_tokens_per_s` counts every token after a request's first; `total_tokens_per_s` adds the prompt tokens of
        requests whose first token came within the window. The paper's `prompt_latency_s` and `decode_latency_s` have
        the same values as `ttft_s` and `itl_s`, with the percentiles of the published simulator.
        """
        prompt, decode = self.latencies("prompt"), self.latencies("decode")
        prompt_tokens = sum(
            r.request.input_tokens
            for r in self.records
            if r.first_token_s is not None and self.window[0] <= r.first_token_s <= self.window[1]
        )
        outcomes = Counter(r.outcome for r in self.records)
        return {
            "decode_tokens_per_s": self._per_s(len(decode)),
            "prompt_latency_s": describe(prompt),
            "decode_latency_s": describe(decode),
            "total_tokens_per_s": self._per_s(len(decode) + prompt_tokens),
            "output_tokens_per_s": self._per_s(len(decode) + len(prompt)),
            "input_tokens_per_s": self._per_s(prompt_tokens),
            **{key: statistics(values) for key, values in self.measures().items()},
            "peak_concurrency": peak_concurrency(self.times, self.window),
            "requests_per_s": self._per_s(
                sum(
                    r.outcome == "finished" and self.window[0] <= (r.finished_s or 0.0) <= self.window[1]
                    for r in self.records
                )
            ),
            "requests": len(self.records),
            "finished": outcomes["finished"],
            "in_flight": outcomes["in_flight"],
            "waiting": sum(r.outcome == "in_flight" and r.started_s is None for r in self.records),
            "rejected": outcomes["rejected"],
            "failed": outcomes["failed"] + outcomes["cancelled"],
            "reasons": dict(sorted(Counter(r.reason for r in self.records if r.reason).items())),
            "restarts": sum(r.restarts for r in self.records),
            "prefix_hit_rate": self.prefix_hit_rate,
            "window_s": list(self.window),
            "partial": self.partial,
            "notes": list(self.notes),
            "nodes": {name: asdict(use) for name, use in self.nodes.items()},
            "links": [asdict(use) for use in self.links],
            "kv_unit": self.kv_unit,
            **({"goodput": self.goodput(slo).to_dict()} if slo is not None else {}),
            **self.facts,
        }

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the prompt tokens of the requests that were started that prefix caches held."""
        started = [r for r in self.records if r.started_s is not None]
        asked = sum(r.request.input_tokens for r in started)
        return sum(r.cached_tokens for r in started) / asked if asked else 0.0

    def token_times_s(self, position: int) -> list[float]:
        """Token times of the record at `position`."""
        return [float(t) for t in np.sort(self.tokens.time_s[self.tokens.request == position])]

    def to_csv(self, path: str | Path) -> None:
        """One row a request: lengths, times, outcome, pipeline."""
        _export.write_csv(self, path)

    def to_json(self, path: str | Path | None = None) -> str:
        """The summary as JSON text, also written to `path` if given; the same run gives the same bytes."""
        return _export.write_json(self, path)

    def to_perfetto(self, path: str | Path) -> None:
        """A Chrome trace (open it at ui.perfetto.dev or chrome://tracing) with each node's batches and KV use."""
        _export.write_perfetto(self, path)

    def to_vllm_json(self, path: str | Path, slo: SLO | None = None) -> None:
        """The result as ``vllm bench serve --save-result --save-detailed`` writes it; with `slo`, with its goodput."""
        _tool_formats.write_vllm_json(self, path, slo)

    def to_aiperf_jsonl(self, path: str | Path) -> None:
        """A line for each request as AIPerf's ``profile_export.jsonl`` has it, which its and other tools read."""
        _tool_formats.write_aiperf_jsonl(self, path)

    def plot(self) -> Any:
        """A figure of throughput, latencies and use over time (matplotlib)."""
        from helix_kit.plots.run import plot_run

        return plot_run(self)

    def _title(self) -> str:
        places = [str(self.facts[key]) for key in ("model", "cluster") if key in self.facts]
        return " on ".join(places) + (" (stopped early)" if self.partial else "")

    def _facts(self) -> dict[str, str]:
        summary = self.summary()
        facts = {
            "requests": f"{summary['requests']:,}",
            "finished": f"{summary['finished']:,}",
            "decodes": f"{number(summary['decode_tokens_per_s'])} tokens/s",
        }
        for phase in ("prompt", "decode"):
            mean_s = summary[f"{phase}_latency_s"]["avg"]
            if mean_s is not None:
                facts[f"{phase} latency"] = f"{number(mean_s)} s"
        if "policy" in self.facts:
            facts["policy"] = str(self.facts["policy"])
        return facts


def merge(runs: Sequence[Run]) -> Run:
    """Runs of parts of a cluster as one: throughputs add up and latencies are pooled.

    Parameters
    ----------
    runs
        Runs with the same window, for example one for each separate pipeline.

    Returns
    -------
    Run
        All records, tokens, nodes and links; provenance and KV unit of the first run.

    Examples
    --------
    >>> from helix_kit.workload.request import Request, RequestRecord
    >>> parts = [Run([RequestRecord(Request(i, 0.0, 5, 5))], window=(0.0, 1.0)) for i in range(2)]
    >>> len(merge(parts).records)
    2
    """
    records: list[RequestRecord] = []
    requests, times = [], []
    for run in runs:
        requests.append(run.tokens.request + len(records))
        times.append(run.tokens.time_s)
        records += run.records
    return Run(
        records,
        window=runs[0].window,
        tokens=TokenTimes(np.concatenate(requests), np.concatenate(times)),
        nodes={name: use for run in runs for name, use in run.nodes.items()},
        links=[use for run in runs for use in run.links],
        batches=[batch for run in runs for batch in run.batches],
        kv_samples={name: samples for run in runs for name, samples in run.kv_samples.items()},
        kv_unit=runs[0].kv_unit,
        partial=any(run.partial for run in runs),
        notes=[note for run in runs for note in run.notes],
        facts=runs[0].facts,
    )


__all__ = ["Run", "merge"]
