"""A workload served for real, reported as a simulation is: the same `Run`, from the same kind of records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kit.errors import HelixKitError
from helix_kit.report import NodeUse, Run
from helix_kit.runtime.parts import node_of
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.runtime.worker.sampling import SamplingParams
from helix_kit.workload.request import Request, RequestRecord
from helix_kit.workload.workload import Workload

if TYPE_CHECKING:
    from helix_kit.runtime.coordinator.jobs import Handle
    from helix_kit.runtime.engine import Engine

MOST_OVERRUNS = 0.02
"""Share of late steps up to which an emulation counts."""


class OverrunError(HelixKitError):
    """This machine was too slow for an emulation: its numbers would not be the emulated cluster's."""


Progress = Callable[[int, int], None]
"""Told how many requests are done, and how many there are."""


def replay(
    engine: Engine,
    workload: Workload,
    *,
    seed: int = 0,
    max_seconds: float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Serve every request of `workload` at its arrival time, with random prompts of its length.

    Each request generates exactly its output tokens, greedily. After `max_seconds` what is unfinished is cancelled and
    reported as in flight, and the run is marked partial. Times in the records count from the start of the replay; the
    window ends with the last token.
    """
    rng = np.random.default_rng(seed)
    vocabulary = engine.vocab_size
    prompts = [rng.integers(3, vocabulary, request.input_tokens).tolist() for request in workload]
    before = engine.status(fresh=True)
    coordinator = engine._coordinator
    start = coordinator.now_s()
    scale = engine.time_scale
    end = start + max_seconds * scale if max_seconds is not None else float("inf")
    handles: list[Handle] = []
    unsent: list[Request] = []
    for request, prompt in zip(workload, prompts):
        due = start + request.arrival_s * scale
        if due >= end:
            unsent.append(request)
            continue
        while (wait := due - coordinator.now_s()) > 0:
            time.sleep(min(wait, 0.2))
            _report(progress, handles, len(workload))
        handles.append(engine._start(prompt, request.output_tokens, SamplingParams(), arrival_s=due))
    while not all(handle.done for handle in handles) and coordinator.now_s() < end:
        time.sleep(0.02)
        _report(progress, handles, len(workload))
    late = {index for index, handle in enumerate(handles) if not handle.done}
    for index in late:
        handles[index].cancel()
    records = []
    for index, (request, handle) in enumerate(zip(workload, handles)):
        record = _on_clock(handle.record, request, start, scale)
        records.append(replace(record, outcome="in_flight", finished_s=None) if index in late else record)
    records += [RequestRecord(request) for request in unsent]
    last = max([t for r in records for t in r.token_times_s[-1:]], default=0.0)
    window = (0.0, max_seconds if late or (unsent and max_seconds is not None) else last)
    after = engine.status(fresh=True)
    facts = _facts(engine, workload, seed, before, after)
    if engine.emulated and facts["overrun_share"] > MOST_OVERRUNS:
        raise OverrunError(
            f"{facts['overrun_share']:.1%} of {facts['steps']} steps took longer than their profile (at most "
            f"{MOST_OVERRUNS:.0%} count as an emulation): expected a larger time_scale than {scale:g}"
        )
    return Run(
        records,
        window=(window[0], float(window[1] or 0.0)),
        nodes=_node_use(before, after, (window[1] or 0.0) * scale),
        kv_unit="pages",
        partial=bool(late or unsent),
        facts=facts,
    )


def _report(progress: Progress | None, handles: list[Handle], total: int) -> None:
    if progress is not None:
        progress(sum(handle.done for handle in handles), total)


def _on_clock(record: RequestRecord, request: Request, start: float, scale: float) -> RequestRecord:
    """The record with times from `start` on in emulated seconds, of the workload's own request."""

    def shift(at: float | None) -> float | None:
        return None if at is None else (at - start) / scale

    return replace(
        record,
        request=request,
        started_s=shift(record.started_s),
        first_token_s=shift(record.first_token_s),
        finished_s=shift(record.finished_s),
        token_times_s=[(t - start) / scale for t in record.token_times_s],
    )


def _node_use(before: dict[str, Any], after: dict[str, Any], window_s: float) -> dict[str, NodeUse]:
    """Use of each node; one with several workers is as busy as they are on average, and has the KV pages of all."""
    by_node: dict[str, list[NodeUse]] = {}
    for worker, now in after["workers"].items():
        use = _worker_use(before["workers"].get(worker, {}), now, window_s)
        by_node.setdefault(node_of(worker), []).append(use)
    return {node: _together(uses) for node, uses in by_node.items()}


def _worker_use(then: dict[str, Any], now: dict[str, Any], window_s: float) -> NodeUse:
    def grown(field: str) -> float:
        # A restarted worker counts from zero again.
        value = now[field] - then.get(field, 0)
        return float(value if value >= 0 else now[field])

    busy = min(1.0, grown("busy_s") / window_s) if window_s > 0 else 0.0
    return NodeUse(
        busy=busy,
        blocked=0.0,
        starved=1.0 - busy,
        steps=int(grown("steps")),
        prefill_tokens=int(grown("prefill_tokens")),
        decode_tokens=int(grown("decode_tokens")),
        kv_capacity=int(now["pages"]),
        kv_peak=int(now["pages_peak"]),
    )


def _together(uses: list[NodeUse]) -> NodeUse:
    if len(uses) == 1:
        return uses[0]
    busy = sum(use.busy for use in uses) / len(uses)
    return NodeUse(
        busy=busy,
        blocked=0.0,
        starved=1.0 - busy,
        steps=sum(use.steps for use in uses),
        # The same tokens pass through all of them, but for those that enter behind the first.
        prefill_tokens=max(use.prefill_tokens for use in uses),
        decode_tokens=max(use.decode_tokens for use in uses),
        kv_capacity=sum(use.kv_capacity for use in uses),
        kv_peak=sum(use.kv_peak for use in uses),
    )


def _facts(
    engine: Engine, workload: Workload, seed: int, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    def total(status: dict[str, Any], field: str) -> float:
        return float(sum(worker[field] for worker in status["workers"].values()))

    steps = total(after, "steps") - total(before, "steps")
    overruns = total(after, "overruns") - total(before, "overruns")
    return {
        "measured": True,
        "engine": "runtime",
        "workload": workload.source,
        "model": engine.plan.model.name,
        "cluster": engine.plan.cluster.name,
        "method": engine.plan.method,
        "policy": engine.policy_name,
        "dtype": engine.dtype,
        "seed": seed,
        "page_tokens": PAGE_TOKENS,
        "time_scale": engine.time_scale,
        "emulated": engine.emulated,
        "steps": int(steps),
        "overruns": int(overruns),
        "overrun_share": overruns / steps if steps > 0 else 0.0,
        "lost_workers": len(after["losses"]) - len(before["losses"]),
        "coordinator_cpu_ms_per_token": _per_token(before, after),
    }


def _per_token(before: dict[str, Any], after: dict[str, Any]) -> float:
    tokens = after["tokens_out"] - before["tokens_out"]
    spent = after["coordinator_cpu_s"] - before["coordinator_cpu_s"]
    return 1e3 * spent / tokens if tokens else 0.0
