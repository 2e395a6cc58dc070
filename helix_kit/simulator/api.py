"""`simulate`: a plan and a workload in, a `Run` out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from helix_kit import __version__
from helix_kit._deprecation import renamed_keywords
from helix_kit.errors import InputError
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan
from helix_kit.profiles.engines import EngineRecord, load_engine
from helix_kit.report import Run
from helix_kit.scheduling import PolicyChoice
from helix_kit.simulator.engine import make_engine
from helix_kit.simulator.faults import Fault
from helix_kit.simulator.first_run import compile_once
from helix_kit.simulator.options import BatchingOptions, Feed, SimulationOptions
from helix_kit.simulator.progress import Progress, watcher
from helix_kit.simulator.replicas.driver import ReplicasEngine
from helix_kit.simulator.reporting import report_of
from helix_kit.workload.request import Request

SAMPLE_EVERY_S = 1.0
_KEEPS_WHAT_IS_DONE = ContextVar("keeps_what_is_done", default=True)
"""Whether Ctrl-C ends a simulation with a partial run. `whole_run` changes it."""


@renamed_keywords(duration="duration_s", warmup="warmup_s")
def simulate(
    plan: Plan,
    workload: Sequence[Request],
    *,
    mode: Literal["online", "offline"] = "online",
    policy: PolicyChoice = "helix",
    execution: Literal["range", "layerwise"] = "range",
    duration_s: float | None = None,
    warmup_s: float | None = None,
    seed: int = 0,
    progress: Progress = False,
    kv_capacity: Mapping[str, int] | None = None,
    links: Iterable[Edge] | None = None,
    feed: Feed | None = None,
    faults: Sequence[Fault] = (),
    options: BatchingOptions | None = None,
    engine: str | EngineRecord | None = None,
    sorts_samples: bool = False,
    penalises: bool = False,
    record_tokens: bool = False,
    record_batches: bool = False,
) -> Run:
    """Simulate serving a workload with a plan.

    Throughput and latencies are counted from `warmup_s` on, for `duration_s` seconds. Ctrl-C ends the simulation and
    returns the run until then, marked as partial. A second Ctrl-C before that ends it without a run.

    Parameters
    ----------
    plan
        The plan; it must carry flow.
    workload
        Requests in order of arrival, at least one.
    mode
        ``online``: requests come when they arrive. ``offline``: they wait from the start and are admitted as there is
        room.
    policy
        A name (helix, swarm, random, shortest_queue, fixed, prefix) or one of your own: ``module:Class``,
        ``file.py:Class``, a subclass of `Policy`, or an object; see `helix_kit.scheduling.make_policy`.
    execution
        ``range`` is how our runtime works. ``layerwise`` follows the published simulator's rules to the last digit.
    duration_s, warmup_s
        Seconds. Online defaults: no warm-up, until 60 s after the last arrival; offline: 60 s of warm-up and 600 s.
    seed
        Seed of the policy's random choices.
    progress
        True for a bar with the simulated time, or a callable that gets (now_s, end_s).
    kv_capacity
        Node -> layer-tokens, in place of the profile's.
    links
        Links that may be used, in the order that decides ties; by default those with flow (helix) or all that fit.
    feed
        How requests are issued in layerwise offline runs; see `Feed`.
    faults
        `NodeDies`, `NodeSlows`, `LinkDegrades`, `PlanSwap` (range execution).
    options
        How workers batch in range execution; see `BatchingOptions`.
    engine
        A serving engine: a name of `helix_kit.profiles.engines.engine_names`, a YAML file, or a record. With an engine
        of replicas, such as ``vllm-0.15``, each pipeline of the plan is a replica whose steps last as the record says,
        and `policy` chooses the replica: helix, shortest_queue, random, or prefix (where the prompt is cached).
        None: the engine that the plan is for, or our runtime.
    sorts_samples
        Whether requests are sampled with top-p or top-k. Engines of replicas take time for it.
    penalises
        Whether requests have a penalty for repetition, presence or frequency. Engines of replicas take time for it.
    record_tokens
        Keep each token's time in its request's record.
    record_batches
        Keep every batch, for `Run.to_perfetto`.

    Returns
    -------
    Run
        A record for each request that was issued, and the use of nodes and links.

    Raises
    ------
    InputError
        An empty workload, an unknown option, KV capacities of nodes that the plan does not have, or a plan without
        flow.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Plan, Problem, Workload
    >>> cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G"}]})
    >>> problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    >>> plan = Plan.from_placement(problem, {"A100-40G-0": (0, 30)}, method="by hand")
    >>> workload = Workload.constant(rate_per_s=1.0, duration_s=5.0, input_tokens=100, output_tokens=10)
    >>> run = simulate(plan, workload, duration_s=10.0)          # doctest: +SKIP
    >>> run.summary()["finished"]                                # doctest: +SKIP
    5
    """
    if not isinstance(plan, Plan):
        expected = "expected a plan, such as Plan.load(file)"
        raise InputError(expected, where="simulate", field="plan", value=type(plan).__name__)
    if isinstance(workload, str):
        expected = "expected requests, such as Workload.azure_conversation(...) or Workload.from_trace(file)"
        raise InputError(expected, where="simulate", field="workload", value=workload)
    record = load_engine(engine) if isinstance(engine, str) else engine
    if record is None and execution == "range" and options is None:
        record = plan.engine
    if record is not None and (execution != "range" or options is not None):
        raise InputError(
            "expected no execution and no options beside an engine, which has its own rules",
            where="simulate", field="engine", value=record.name,
        )  # fmt: skip
    if record is not None and record.execution == "range":
        options = batching_of(record)
    chosen = SimulationOptions(
        mode=mode, policy=policy, execution=execution, duration_s=duration_s, warmup_s=warmup_s, seed=seed,
        kv_capacity=kv_capacity, links=links, feed=feed, faults=faults, batching=options or BatchingOptions(),
        record_batches=record_batches, engine=record, sorts_samples=sorts_samples, penalises=penalises,
    ).with_window(workload)  # fmt: skip
    chosen.check(plan, workload)
    simulation = make_engine(plan, workload, chosen)
    compile_once(execution, record)
    partial = False
    start_s, end_s = chosen.window_s
    stop_s = end_s
    with watcher(progress, end_s) as watch, _interruptible() as interrupted:
        try:
            simulation.run(end_s, lambda now_s: _check_in(now_s, watch, interrupted), SAMPLE_EVERY_S)
        except KeyboardInterrupt:
            if not _KEEPS_WHAT_IS_DONE.get() or len(interrupted) > 1:
                raise
            partial = True
            stop_s = simulation.now_s()
    facts = {"plan_method": plan.method, "cluster": plan.cluster.name, "model": plan.model.name, "mode": mode,
             "policy": policy if isinstance(policy, str) else chosen.policy_name, "execution": execution, "seed": seed,
             "helix_kit": __version__}  # fmt: skip
    if isinstance(simulation, ReplicasEngine):
        facts |= simulation.facts()
    elif record is not None:
        facts["engine"] = record.name
    run = report_of(simulation, (start_s, max(start_s, min(stop_s, end_s))), partial, record_tokens, facts)
    if partial:
        run.notes = (*run.notes, _stopped_note(run, stop_s, end_s))
    return run


def _stopped_note(run: Run, stop_s: float, end_s: float) -> str:
    """What a reader must know of a run that Ctrl-C has ended."""
    measured = f"the figures are of the {run.window_s:,.0f} s that were measured until then"
    until = measured if run.window_s > 0 else "before the measuring began, so there are no figures"
    return f"the simulation was stopped at {stop_s:,.0f} s of {end_s:,.0f} s: {until}"


def whole_run(plan: Plan, workload: Sequence[Request], **options: Any) -> Run:
    """Simulate as `simulate` does, but leave Ctrl-C to the caller, so that the run is never a partial one.

    `simulate` itself ends at Ctrl-C with a partial run, which a search or a comparison would take for a whole one.

    Parameters
    ----------
    plan
        The plan; it must carry flow.
    workload
        Requests in order of arrival, at least one.
    options
        Keywords of `simulate`.

    Returns
    -------
    Run
        Never a partial one.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C, unless the program handles that signal in another way.

    Examples
    --------
    >>> whole_run(plan, workload, duration_s=60.0).partial          # doctest: +SKIP
    False
    """
    token = _KEEPS_WHAT_IS_DONE.set(False)
    try:
        return simulate(plan, workload, **options)
    finally:
        _KEEPS_WHAT_IS_DONE.reset(token)


def batching_of(engine: EngineRecord) -> BatchingOptions:
    """The options of our runtime that an engine's record stands for."""
    rules = engine.rules
    return BatchingOptions(
        step_tokens=rules.max_num_batched_tokens,
        chunk_tokens=rules.prefill_chunk_tokens or rules.max_num_batched_tokens,
        page_tokens=rules.block_tokens,
        prefix_cache=rules.prefix_cache,
        max_in_flight=rules.max_num_seqs if "max_num_seqs" in rules.model_fields_set else None,
    )


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The signals of Ctrl-C so far. The first is looked at between events; the second ends the simulation at once.

    The second is for when the next look is far away, as while the simulator is compiled.
    """
    pressed: list[int] = []
    if not _KEEPS_WHAT_IS_DONE.get() or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def press(number: int, _: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _check_in(now_s: float, watch: Callable[[float], None], interrupted: list[int]) -> None:
    watch(now_s)
    if interrupted:
        raise KeyboardInterrupt
