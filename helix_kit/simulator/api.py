"""`simulate`: a plan and a workload in, a `Run` out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from helix_kit import __version__
from helix_kit._deprecation import renamed_keywords
from helix_kit.errors import InputError
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan
from helix_kit.report import Run
from helix_kit.scheduling import Policy, make_policy
from helix_kit.scheduling.policy import valid_links
from helix_kit.simulator import setup as setups
from helix_kit.simulator.faults import Fault
from helix_kit.simulator.layerwise import rules as layerwise
from helix_kit.simulator.layerwise.driver import HOP_BY_HOP, Feed, Layerwise
from helix_kit.simulator.progress import Progress, watcher
from helix_kit.simulator.ranged import rules as ranged
from helix_kit.simulator.ranged.driver import Options, Serving, check_faults
from helix_kit.simulator.reporting import report_of
from helix_kit.simulator.setup import Setup
from helix_kit.typical_request import ROUND_CONTEXT_TOKENS
from helix_kit.workload.request import Request

OFFLINE_WARMUP_S, OFFLINE_DURATION_S = 60.0, 600.0
SAMPLE_EVERY_S = 1.0


@renamed_keywords(duration="duration_s", warmup="warmup_s")
def simulate(
    plan: Plan,
    workload: Sequence[Request],
    *,
    mode: Literal["online", "offline"] = "online",
    policy: str | Policy = "helix",
    execution: Literal["range", "layerwise"] = "range",
    duration_s: float | None = None,
    warmup_s: float | None = None,
    seed: int = 0,
    progress: Progress = False,
    kv_capacity: Mapping[str, int] | None = None,
    links: Iterable[Edge] | None = None,
    feed: Feed | None = None,
    faults: Sequence[Fault] = (),
    options: Options | None = None,
    record_tokens: bool = False,
    record_batches: bool = False,
) -> Run:
    """Simulate serving `workload` with `plan`; throughput and latencies count from `warmup_s` for `duration_s` seconds.

    Parameters
    ----------
    mode
        ``online``: requests come when they arrive. ``offline``: they wait from the start and are taken up as
        there is room.
    policy
        A name (helix, swarm, random, shortest_queue, fixed) or a `Policy` of your own.
    execution
        ``range`` is how our runtime works, ``layerwise`` the published simulator's rules to the letter.
    duration_s, warmup_s
        Seconds. Online defaults: no warm-up, until the last arrival and 60 s more; offline: 60 s and 600 s.
    progress
        True for a bar with the simulated time, or a callable that gets (now_s, end_s).
    kv_capacity
        Node -> layer-tokens, in place of the profile's.
    links
        Links that may be used, in the order that decides ties; by default those with flow (helix) or all that fit.
    feed
        Layerwise offline runs: how requests are taken up; see `Feed`.
    faults
        `NodeDies`, `NodeSlows`, `LinkDegrades`, `PlanSwap` (range execution).
    options
        How workers batch in range execution; see `Options`.
    record_tokens, record_batches
        Keep each token's time in its record; keep every batch for `Run.to_perfetto`.

    Raises InputError for an empty workload, an unknown option, or KV capacities of nodes the plan does not have.
    Ctrl-C ends the simulation and returns what there is, marked as partial.
    """
    warmup_s, duration_s = _window(workload, mode, duration_s, warmup_s)
    _check(plan, workload, mode, execution, kv_capacity)
    engine = make_engine(
        plan, workload, mode=mode, policy=policy, execution=execution, warmup_s=warmup_s, duration_s=duration_s,
        seed=seed, kv_capacity=kv_capacity, links=links, feed=feed, record_batches=record_batches, faults=faults,
        options=options,
    )  # fmt: skip
    name = policy.name if isinstance(policy, Policy) else policy
    _say_if_compiling(execution)
    partial = False
    end = warmup_s + duration_s
    with watcher(progress, end) as watch, _interruptible() as interrupted:
        try:
            engine.run(end, lambda now: _check_in(now, watch, interrupted), SAMPLE_EVERY_S)
        except KeyboardInterrupt:
            partial = True
            end = engine.now_s()
    facts = {"plan_method": plan.method, "cluster": plan.cluster.name, "model": plan.model.name, "mode": mode,
             "policy": name, "execution": execution, "seed": seed, "helix_kit": __version__}  # fmt: skip
    return report_of(engine, (warmup_s, max(warmup_s, min(end, warmup_s + duration_s))), partial, record_tokens, facts)


def _say_if_compiling(execution: str) -> None:
    """Tell the user why the very first simulation takes longer: numba compiles it, once."""
    module = ranged if execution == "range" else layerwise
    name = module.__name__.rsplit(".", 1)[-1]
    if not module.advance.signatures and not any(Path(module.advance.stats.cache_path).glob(f"{name}.advance-*.nbi")):
        print("helix_kit: compiling the simulator (about 10 s, once)", file=sys.stderr, flush=True)


def make_engine(
    plan: Plan,
    workload: Sequence[Request],
    *,
    mode: str,
    policy: str | Policy,
    execution: str,
    warmup_s: float,
    duration_s: float,
    seed: int = 0,
    kv_capacity: Mapping[str, int] | None = None,
    links: Iterable[Edge] | None = None,
    feed: Feed | None = None,
    record_batches: bool = False,
    faults: Sequence[Fault] = (),
    options: Options | None = None,
) -> Layerwise | Serving:
    """An engine that is ready to run; see `simulate` for the parameters."""
    name = policy.name if isinstance(policy, Policy) else policy.replace("-", "_").lower()
    if execution == "range":
        return _serving(
            plan, workload, mode, policy, (warmup_s, warmup_s + duration_s), seed, kv_capacity, links, record_batches,
            faults, options,
        )  # fmt: skip
    if faults:
        raise InputError("faults need execution='range': the published rules know none", where="simulate")
    by_hop = not isinstance(policy, Policy) and name in HOP_BY_HOP
    if links is None:
        links = list(plan.flow_edges) if name in {"helix", "fixed"} else valid_links(plan)
    made = setups.build(plan, list(links), kv_capacity=kv_capacity)
    constants: dict[str, Any] = {}
    if name == "helix" and not isinstance(policy, Policy):
        setups.grant(made)
        constants = published_options(made, mode)
    chosen = name if by_hop else make_policy(policy, plan, seed=seed, kv_capacity=kv_capacity, **constants)
    if mode == "offline" and feed is None:
        feed = Feed() if name == "helix" else Feed(_fixed_in_flight(made), kv_mark=None)
    return Layerwise(
        made,
        list(workload),
        chosen,
        feed=feed if mode == "offline" else None,
        start_s=setups.load_seconds(plan),
        window=(warmup_s, warmup_s + duration_s),
        seed=seed,
        record_batches=record_batches,
    )


def _serving(
    plan: Plan,
    workload: Sequence[Request],
    mode: str,
    policy: str | Policy,
    window: tuple[float, float],
    seed: int,
    kv_capacity: Mapping[str, int] | None,
    links: Iterable[Edge] | None,
    record_batches: bool,
    faults: Sequence[Fault],
    options: Options | None,
) -> Serving:
    """An engine under the runtime's rules; every link that fits may be used, since faults may call for it."""
    usable = None if links is None else list(links)

    def make_setup(under: Plan) -> Setup:
        return setups.build(under, usable if usable is not None else valid_links(under), kv_capacity=kv_capacity)

    def choose(under: Plan) -> Policy:
        helix = policy == "helix"
        return make_policy(policy, under, seed=seed, kv_capacity=kv_capacity, links=None if helix else usable)

    made = make_setup(plan)
    check_faults(faults, made)
    return Serving(
        made, list(workload), choose, make_setup, offline=mode == "offline", window=window,
        record_batches=record_batches, faults=faults, options=options,
    )  # fmt: skip


def published_options(made: Setup, mode: str) -> dict[str, Any]:
    """Constants of the published Helix scheduler."""
    marks = {"high_water": 0.85, "output_ratio": 1.0} if mode == "offline" else {"high_water": 0.9, "output_ratio": 0.6}
    longest = {name: int(n) for name, n in zip(made.names, made.nodes["prefill_tokens_max"], strict=False)}
    return {"kv": "expectation", **marks, "max_prompt_tokens": longest}


def _fixed_in_flight(made: Setup) -> int:
    """Requests that the tightest layer's KV cache holds at 60 %, for baselines that cannot refuse."""
    nodes = made.nodes[:-2]
    room = np.zeros(made.plan.model.num_layers)
    for node in nodes:
        room[node["start"] : node["start"] + node["layers"]] += node["kv_capacity"] / node["layers"]
    return max(1, int(0.6 * room.min() / ROUND_CONTEXT_TOKENS))


def _window(
    workload: Sequence[Request], mode: str, duration_s: float | None, warmup_s: float | None
) -> tuple[float, float]:
    offline = mode == "offline"
    if warmup_s is None:
        warmup_s = OFFLINE_WARMUP_S if offline else 0.0
    if duration_s is None:
        last = max((r.arrival_s for r in workload), default=0.0)
        duration_s = OFFLINE_DURATION_S if offline else max(60.0, last + 60.0 - warmup_s)
    for field, value, least in [("duration_s", duration_s, 1e-9), ("warmup_s", warmup_s, 0.0)]:
        if not least <= value < float("inf"):
            raise InputError("expected a finite number of seconds", where="simulate", field=field, value=value)
    return warmup_s, duration_s


def _check(
    plan: Plan, workload: Sequence[Request], mode: str, execution: str, kv_capacity: Mapping[str, int] | None
) -> None:
    if len(workload) == 0:
        raise InputError("expected at least one request, the workload is empty", where="simulate", field="workload")
    if mode not in {"online", "offline"}:
        raise InputError("expected online or offline", where="simulate", field="mode", value=mode)
    if execution not in {"range", "layerwise"}:
        raise InputError("expected range or layerwise", where="simulate", field="execution", value=execution)
    for node in kv_capacity or {}:
        if node not in plan.placement:
            raise InputError("expected a node of the plan", where="simulate", field="kv_capacity", value=node)
    if not plan.placement or plan.flow_tokens_per_s <= 0:
        raise InputError(
            "expected a plan that carries flow: its placement covers no pipeline from layer 0 to the last",
            where="simulate", field="plan.flow_tokens_per_s", value=plan.flow_tokens_per_s,
        )  # fmt: skip


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """A flag that Ctrl-C sets, so that compiled code is never cut in the middle of an event."""
    hit = [False]
    if threading.current_thread() is not threading.main_thread():
        yield hit
        return
    before = signal.signal(signal.SIGINT, lambda *_: hit.__setitem__(0, True))
    try:
        yield hit
    finally:
        signal.signal(signal.SIGINT, before)


def _check_in(now_s: float, watch: Callable[[float], None], interrupted: list[bool]) -> None:
    watch(now_s)
    if interrupted[0]:
        raise KeyboardInterrupt
