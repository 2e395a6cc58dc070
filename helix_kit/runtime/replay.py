"""A workload served by an engine and reported as a simulation is: the same `Run`, from the same kind of records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan
from helix_kit.report import NodeUse, Run
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.node_workers import node_of
from helix_kit.runtime.status import EngineStatus, WorkerStatus
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.workload.request import Request, RequestRecord
from helix_kit.workload.workload import Workload

MAX_OVERRUN_SHARE = 0.02
"""An emulated run with a larger share of late steps is refused."""
PROGRESS_S = 0.2
"""How often progress is reported while no request is due."""
POLL_S = 0.02


class OverrunError(HelixKitError):
    """This machine was too slow for an emulation: the times would not be those of the emulated cluster."""


class ReplayTarget(Protocol):
    """What a replay needs of an engine; `Engine` has it. The methods are described there."""

    plan: Plan
    policy_name: str
    dtype: str
    time_scale: float
    emulated: bool

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        ...

    def now_s(self) -> float:
        """Seconds on the engine's clock."""
        ...

    def submit_tokens(self, token_ids: list[int], new_tokens: int, *, arrival_s: float) -> Handle:
        """Hand in a prompt that is answered with exactly `new_tokens` greedy tokens."""
        ...

    def status(self, *, fresh: bool = False) -> EngineStatus:
        """The state of the engine, with new counters if `fresh`."""
        ...


Progress = Callable[[int, int], None]
"""Called with (requests done, all requests)."""


def replay(
    engine: ReplayTarget,
    workload: Workload,
    *,
    seed: int = 0,
    max_seconds: float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Serve every request of `workload` at its arrival time, with random prompts of its length.

    Each request generates exactly its output tokens, greedily. After `max_seconds`, unfinished requests are cancelled
    and reported as in flight, and the run is marked partial. Times in the records count from the start of the replay.
    The window ends with the last request, or after `max_seconds` when requests were unfinished then.

    Raises OverrunError when an emulated cluster was late in more than 2 % of its steps.
    """
    rng = np.random.default_rng(seed)
    vocabulary = engine.vocab_size
    prompts = [rng.integers(3, vocabulary, request.input_tokens).tolist() for request in workload]
    before = engine.status(fresh=True)
    start_s, scale = engine.now_s(), engine.time_scale
    end_s = start_s + max_seconds * scale if max_seconds is not None else float("inf")
    handles, unsent = _submit_in_time(engine, workload, prompts, start_s, end_s, progress)
    while not all(handle.done for handle in handles) and engine.now_s() < end_s:
        time.sleep(POLL_S)
        _report(progress, handles, len(workload))
    unfinished = {index for index, handle in enumerate(handles) if not handle.done}
    for index in unfinished:
        handles[index].cancel()
    records = []
    for index, (request, handle) in enumerate(zip(workload, handles)):
        record = _in_emulated_time(handle.record, request, start_s, scale)
        records.append(replace(record, outcome="in_flight", finished_s=None) if index in unfinished else record)
    records += [RequestRecord(request) for request in unsent]
    is_partial = bool(unfinished or unsent)
    if is_partial and max_seconds is not None:
        window_s = float(max_seconds)
    else:
        # A request ends some microseconds after its last token, and counts in the window in which it ends.
        ends = [t for r in records for t in (*r.token_times_s[-1:], r.finished_s) if t is not None]
        window_s = float(max(ends, default=0.0))
    after = engine.status(fresh=True)
    facts = _facts(engine, workload, seed, before, after)
    if engine.emulated and facts["overrun_share"] > MAX_OVERRUN_SHARE:
        raise OverrunError(
            f"{facts['overrun_share']:.1%} of {facts['steps']} steps took longer than their profile (an emulation may "
            f"have at most {MAX_OVERRUN_SHARE:.0%}): expected a larger time_scale than {scale:g}"
        )
    return Run(
        records,
        window=(0.0, window_s),
        nodes=_node_use(before, after, window_s * scale),
        kv_unit="pages",
        partial=is_partial,
        facts=facts,
    )


def _submit_in_time(
    engine: ReplayTarget,
    workload: Workload,
    prompts: list[list[int]],
    start_s: float,
    end_s: float,
    progress: Progress | None,
) -> tuple[list[Handle], list[Request]]:
    """Submit each request when it is due; returns the handles, and the requests that are due after the end."""
    handles: list[Handle] = []
    unsent: list[Request] = []
    for request, prompt in zip(workload, prompts):
        due_s = start_s + request.arrival_s * engine.time_scale
        if due_s >= end_s:
            unsent.append(request)
            continue
        while (wait_s := due_s - engine.now_s()) > 0:
            time.sleep(min(wait_s, PROGRESS_S))
            _report(progress, handles, len(workload))
        handles.append(engine.submit_tokens(prompt, request.output_tokens, arrival_s=due_s))
    return handles, unsent


def _report(progress: Progress | None, handles: list[Handle], total: int) -> None:
    if progress is not None:
        progress(sum(handle.done for handle in handles), total)


def _in_emulated_time(record: RequestRecord, request: Request, start_s: float, scale: float) -> RequestRecord:
    """The record of the workload's own `request`, with times in emulated seconds since the start of the replay."""

    def shift(at_s: float | None) -> float | None:
        return None if at_s is None else (at_s - start_s) / scale

    return replace(
        record,
        request=request,
        started_s=shift(record.started_s),
        first_token_s=shift(record.first_token_s),
        finished_s=shift(record.finished_s),
        token_times_s=[(t - start_s) / scale for t in record.token_times_s],
    )


def _node_use(before: EngineStatus, after: EngineStatus, window_s: float) -> dict[str, NodeUse]:
    """Use of each node between two statuses, `window_s` of this machine's time apart."""
    by_node: dict[str, list[NodeUse]] = {}
    for name, now in after.workers.items():
        use = _worker_use(before.workers.get(name, _NOT_STARTED), now, window_s)
        by_node.setdefault(node_of(name), []).append(use)
    return {node: _combined(uses) for node, uses in by_node.items()}


_NOT_STARTED = WorkerStatus(state="starting", pid=None, layers=(0, 0), pages=0, reason="", report_age_s=None)


def _worker_use(then: WorkerStatus, now: WorkerStatus, window_s: float) -> NodeUse:
    def increase(value: float, earlier: float) -> float:
        # A restarted worker counts from zero again.
        return value - earlier if value >= earlier else value

    busy_s = increase(now.busy_s, then.busy_s)
    busy = min(1.0, busy_s / window_s) if window_s > 0 else 0.0
    return NodeUse(
        busy=busy,
        blocked=0.0,
        starved=1.0 - busy,
        steps=int(increase(now.steps, then.steps)),
        prefill_tokens=int(increase(now.prefill_tokens, then.prefill_tokens)),
        decode_tokens=int(increase(now.decode_tokens, then.decode_tokens)),
        kv_capacity=now.pages,
        kv_peak=now.pages_peak,
    )


def _combined(uses: list[NodeUse]) -> NodeUse:
    """Use of a node with several workers: it is as busy as they are on average, and has the KV pages of all."""
    if len(uses) == 1:
        return uses[0]
    busy = sum(use.busy for use in uses) / len(uses)
    return NodeUse(
        busy=busy,
        blocked=0.0,
        starved=1.0 - busy,
        steps=sum(use.steps for use in uses),
        # The same tokens pass through all workers, except those that enter the node after its first worker.
        prefill_tokens=max(use.prefill_tokens for use in uses),
        decode_tokens=max(use.decode_tokens for use in uses),
        kv_capacity=sum(use.kv_capacity for use in uses),
        kv_peak=sum(use.kv_peak for use in uses),
    )


def _facts(
    engine: ReplayTarget, workload: Workload, seed: int, before: EngineStatus, after: EngineStatus
) -> dict[str, Any]:
    def steps_of(status: EngineStatus) -> tuple[int, int]:
        workers = status.workers.values()
        return sum(worker.steps for worker in workers), sum(worker.overruns for worker in workers)

    (steps_before, overruns_before), (steps_after, overruns_after) = steps_of(before), steps_of(after)
    steps, overruns = steps_after - steps_before, overruns_after - overruns_before
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
        "steps": steps,
        "overruns": overruns,
        "overrun_share": overruns / steps if steps > 0 else 0.0,
        "lost_workers": len(after.losses) - len(before.losses),
        "coordinator_cpu_ms_per_token": _coordinator_ms_per_token(before, after),
    }


def _coordinator_ms_per_token(before: EngineStatus, after: EngineStatus) -> float:
    tokens = after.tokens_out - before.tokens_out
    spent_s = after.coordinator_cpu_s - before.coordinator_cpu_s
    return 1e3 * spent_s / tokens if tokens else 0.0
