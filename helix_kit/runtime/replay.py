"""A workload served by an engine and reported as a simulation is: the same `Run`, from the same kind of records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.report import NodeUse, Run
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.handle import Handle
from helix_kit.runtime.node_workers import node_of
from helix_kit.runtime.replay_prompts import ReplayPrompts
from helix_kit.runtime.status import EngineStatus, WorkerStatus
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.workload.request import Request, RequestRecord
from helix_kit.workload.workload import Workload

MAX_OVERRUN_SHARE = 0.02
"""An emulated run with a larger share of late steps is refused."""
PROGRESS_S = 0.2
"""How often progress is reported while no request is due."""
POLL_S = 0.02
QUEUED = 64
"""Requests that wait at the coordinator while a backlog is fed: more than it admits between two looks."""


class OverrunError(HelixKitError):
    """This machine was too slow for an emulation: the times would not be those of the emulated cluster."""


class ReplayTarget(Protocol):
    """What a replay needs of an engine; `Engine` has it. The methods are described there."""

    plan: Plan
    policy_name: str
    dtype: str
    time_scale: float
    emulated: bool
    prefix_cache: bool

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

    def reset_prefix_cache(self) -> None:
        """Forget what the prefix caches hold."""
        ...

    def limit_running(self, count: int | None) -> None:
        """Let at most so many requests run at once."""
        ...

    def status(self, *, fresh: bool = False) -> EngineStatus:
        """The state of the engine, with new counters if `fresh`."""
        ...


Progress = Callable[[int, int], None]
"""Called with (requests done, all requests)."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How a workload is replayed; the fields are keywords of `Engine.replay`, which describes them.

    Raises
    ------
    InputError
        For an unknown mode, an offline replay without an end, a window that ends before it begins, or a limit below 1.

    Examples
    --------
    >>> ReplayOptions(mode="offline", window=(10.0, 60.0)).end_s
    60.0
    """

    seed: int = 0
    """Of the prompts."""
    mode: Literal["online", "offline"] = "online"
    """Requests are sent when they arrive, or wait from the start."""
    max_seconds: float | None = None
    """When the replay ends at the latest."""
    window: tuple[float, float] | None = None
    """What is measured; the replay ends at its end."""
    max_in_flight: int | None = None
    """Requests of an offline replay that may run at once."""
    progress: Progress | None = None
    """Called with (requests done, all requests)."""
    stop: Callable[[], bool] | None = None
    """Asked often. Once it says yes, the replay ends."""

    def __post_init__(self) -> None:
        if self.mode not in {"online", "offline"}:
            raise InputError("expected online or offline", where="replay", field="mode", value=self.mode)
        if self.window is not None and not 0 <= self.window[0] < self.window[1] < float("inf"):
            raise InputError("expected 0 <= start < end in s", where="replay", field="window", value=self.window)
        if self.mode == "offline" and self.end_s == float("inf"):
            raise InputError("expected a window or max_seconds for mode offline", where="replay", field="window")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise InputError("expected at least 1", where="replay", field="max_in_flight", value=self.max_in_flight)

    @property
    def end_s(self) -> float:
        """Seconds after which unfinished requests are cancelled; infinite where all are waited for."""
        ends = [self.max_seconds, self.window[1] if self.window is not None else None]
        return min((float(end) for end in ends if end is not None), default=float("inf"))


def check_fit(workload: Workload, context_tokens: int) -> None:
    """Raise InputError when requests of `workload` have more tokens, prompt and answer, than the context."""
    long = [request for request in workload if request.input_tokens + request.output_tokens > context_tokens]
    if long:
        longest = max(long, key=lambda request: request.input_tokens + request.output_tokens)
        raise InputError(
            f"{len(long):,} of {len(workload):,} requests do not fit into the model's context of {context_tokens:,} "
            f"tokens; the longest has {longest.input_tokens:,} in and {longest.output_tokens:,} out. Cut them by "
            "Workload.shortened(max_input, max_output), or --max-input-tokens and --max-output-tokens",
            where=workload.source,
        )


def replay(engine: ReplayTarget, workload: Workload, options: ReplayOptions) -> Run:
    """Serve the requests of `workload`, with random prompts of their lengths; contents that they share are the same.

    The prefix caches are empty at the start.

    Each request generates exactly its output tokens, greedily. At the end of the replay, unfinished requests are
    cancelled and reported as in flight, and the run is marked partial. Times in the records count from the start of the
    replay. Without a window, what is measured ends with the last request, or after `max_seconds` when requests were
    unfinished then.

    Offline, requests wait from the start, and the workers take up as many as their KV pages hold. As in the simulator,
    a request counts as having arrived when it is taken up, and requests that never were have no record.

    Raises OverrunError when an emulated cluster was late in more than 2 % of its steps.
    """
    # A second replay would find the prompts of the first.
    engine.reset_prefix_cache()
    before = engine.status(fresh=True)
    start_s, scale = engine.now_s(), engine.time_scale
    end_s = start_s + options.end_s * scale

    def was_stopped() -> bool:
        return options.stop is not None and options.stop()

    def is_over() -> bool:
        return engine.now_s() >= end_s or was_stopped()

    engine.limit_running(options.max_in_flight)
    try:
        handles = _serve_all(engine, workload, options, start_s, end_s, is_over)
    finally:
        with suppress(EngineError):  # a closed engine has no limit to lift, and the first error is the one to be told
            engine.limit_running(None)
    unsent: Sequence[Request] = workload[len(handles) :] if options.mode == "online" else []
    unfinished = {index for index, handle in enumerate(handles) if not handle.done}
    for index in sorted(unfinished, reverse=True):  # those that wait first: they are not to take the place of others
        handles[index].cancel()
    records = []
    for index, (request, handle) in enumerate(zip(workload, handles)):
        record = _in_emulated_time(handle.record, request, start_s, scale)
        records.append(replace(record, outcome="in_flight", finished_s=None) if index in unfinished else record)
    facts: dict[str, Any] = {}
    if options.mode == "offline":
        all_taken_up = len(handles) == len(workload) and all(r.started_s is not None for r in records)
        records = [_arrived_when_taken_up(r) for r in records if r.started_s is not None or r.outcome != "in_flight"]
        if all_taken_up:
            facts["ran_dry_s"] = max((r.started_s for r in records if r.started_s is not None), default=0.0)
    records += [RequestRecord(request) for request in unsent]
    is_partial = bool(unfinished or unsent)
    if options.window is not None:
        window = options.window
    elif is_partial and options.max_seconds is not None and not was_stopped():
        window = (0.0, float(options.max_seconds))
    else:
        # A request ends some microseconds after its last token, and counts in the window in which it ends.
        ends = [t for r in records for t in (*r.token_times_s[-1:], r.finished_s) if t is not None]
        window = (0.0, float(max(ends, default=0.0)))
    after = engine.status(fresh=True)
    facts = {**_facts(engine, workload, options, before, after), **facts}
    if engine.emulated and facts["overrun_share"] > MAX_OVERRUN_SHARE:
        raise OverrunError(
            f"{facts['overrun_share']:.1%} of {facts['steps']} steps took longer than their profile (an emulation may "
            f"have at most {MAX_OVERRUN_SHARE:.0%}): expected a larger time_scale than {scale:g}"
        )
    return Run(
        records,
        window=window,
        nodes=_node_use(before, after, window[1] * scale),
        kv_unit="pages",
        partial=is_partial,
        notes=[
            f"worker {loss.worker} was lost at {(loss.time_s - start_s) / scale:.0f} s: {loss.reason}"
            for loss in after.losses[len(before.losses) :]
        ],
        facts=facts,
    )


def _serve_all(
    engine: ReplayTarget, workload: Workload, options: ReplayOptions, start_s: float, end_s: float,
    is_over: Callable[[], bool],
) -> list[Handle]:  # fmt: skip
    """Submit the requests, and wait until all are done or the replay is over; returns the handles."""
    prompts = ReplayPrompts(options.seed, engine.vocab_size)
    if options.mode == "offline":
        handles = _feed_backlog(engine, workload, prompts, is_over, options)
    else:
        due = [(request, start_s + request.arrival_s * engine.time_scale) for request in workload]
        in_time = [(request, due_s) for request, due_s in due if due_s < end_s]
        handles = _submit_in_time(engine, in_time, prompts, is_over, partial(_report, options.progress, len(workload)))
    while not all(handle.done for handle in handles) and not is_over():
        time.sleep(POLL_S)
        _report(options.progress, len(workload), handles)
    return handles


def _submit(engine: ReplayTarget, prompts: ReplayPrompts, request: Request, arrival_s: float) -> Handle:
    handle = engine.submit_tokens(prompts.token_ids(request), request.output_tokens, arrival_s=arrival_s)
    prompts.keep_answer(request, handle)
    return handle


def _feed_backlog(
    engine: ReplayTarget,
    workload: Workload,
    prompts: ReplayPrompts,
    is_over: Callable[[], bool],
    options: ReplayOptions,
) -> list[Handle]:
    """Let requests wait, a few at a time, until the end or until all have been taken up; returns their handles.

    The workers stay as full as if all requests waited: more follow before the queue is empty.
    """
    handles: list[Handle] = []
    unfinished: list[Handle] = []
    # A prompt that holds an answer can be made only when the request before it has ended.
    has_answers = any(request.answer is not None for request in workload)
    limit = options.max_in_flight if has_answers and options.max_in_flight else len(workload)
    while len(handles) < len(workload) and not is_over():
        unfinished = [handle for handle in unfinished if not handle.done]
        waiting = sum(not handle.started for handle in unfinished)
        count = max(0, min(QUEUED - waiting, limit - len(unfinished)))
        following = workload[len(handles) : len(handles) + count]
        more = [_submit(engine, prompts, request, engine.now_s()) for request in following]
        handles += more
        unfinished += more
        time.sleep(POLL_S)
        _report(options.progress, len(workload), handles)
    return handles


def _arrived_when_taken_up(record: RequestRecord) -> RequestRecord:
    """The record of a request of a backlog: its wait before it is taken up is of no interest."""
    if record.started_s is None:
        return record
    return replace(record, request=replace(record.request, arrival_s=record.started_s))


def _submit_in_time(
    engine: ReplayTarget, due: list[tuple[Request, float]], prompts: ReplayPrompts, is_over: Callable[[], bool],
    report: Callable[[list[Handle]], None],
) -> list[Handle]:  # fmt: skip
    """Submit each request when it is due, until the end; returns the handles."""
    handles: list[Handle] = []
    for request, due_s in due:
        while (wait_s := due_s - engine.now_s()) > 0 and not is_over():
            time.sleep(min(wait_s, PROGRESS_S))
            report(handles)
        if wait_s > 0:
            break
        handles.append(_submit(engine, prompts, request, due_s))
    return handles


def _report(progress: Progress | None, total: int, handles: list[Handle]) -> None:
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
    engine: ReplayTarget, workload: Workload, options: ReplayOptions, before: EngineStatus, after: EngineStatus
) -> dict[str, Any]:
    steps, overruns = after.steps - before.steps, after.overruns - before.overruns
    return {
        "measured": True,
        "engine": "runtime",
        "workload": workload.source,
        "model": engine.plan.model.name,
        "cluster": engine.plan.cluster.name,
        "method": engine.plan.method,
        "policy": engine.policy_name,
        "dtype": engine.dtype,
        "mode": options.mode,
        "seed": options.seed,
        "page_tokens": PAGE_TOKENS,
        "time_scale": engine.time_scale,
        "emulated": engine.emulated,
        "steps": steps,
        "overruns": overruns,
        "overrun_share": overruns / steps if steps > 0 else 0.0,
        "prefix_cache": engine.prefix_cache,
        "lost_workers": len(after.losses) - len(before.losses),
        "worker_cpu_ms_per_step": _cpu_ms_per_step(before, after, steps),
        "coordinator_cpu_ms_per_token": _coordinator_ms_per_token(before, after),
    }


def _cpu_ms_per_step(before: EngineStatus, after: EngineStatus, steps: int) -> float:
    """CPU time of the workers' processes for each of their steps."""
    spent_s = sum(worker.cpu_s for worker in after.workers.values())
    spent_s -= sum(worker.cpu_s for worker in before.workers.values())
    return 1e3 * spent_s / steps if steps > 0 else 0.0


def _coordinator_ms_per_token(before: EngineStatus, after: EngineStatus) -> float:
    tokens = after.tokens_out - before.tokens_out
    spent_s = after.coordinator_cpu_s - before.coordinator_cpu_s
    return 1e3 * spent_s / tokens if tokens else 0.0
