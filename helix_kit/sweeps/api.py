"""`sweep`: plans and loads in, saturation curves out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from helix_kit import __version__
from helix_kit.errors import InputError
from helix_kit.metrics import SLO, peak_concurrency
from helix_kit.placement.plan import Plan
from helix_kit.profiles.engines import EngineRecord, load_engine
from helix_kit.scheduling import PolicyChoice, policy_name, resolve_policy
from helix_kit.simulator import whole_run
from helix_kit.sweeps.load import SweepOptions, check_name, closed_loop_requests
from helix_kit.sweeps.point import Point, at_most
from helix_kit.sweeps.pool import Kept, rows_of
from helix_kit.sweeps.result import Sweep
from helix_kit.workload.workload import Workload

AUTO_RATES = 12
AUTO_RANGE = (0.1, 1.2)
"""``auto``: rates from a tenth of what the best plan serves offline to a fifth more than it."""
WARMUP_STAYS, MEASURED_STAYS = 2.5, 3.0
"""Warm-up and window, in mean stays of a request with full KV caches. Batches slow down as requests gather, so that
their number settles only after two to three stays (single24 at 1 request/s: 264, 297 and 328 after two, three and four
stays of 300 s)."""
SHORTEST_S, LONGEST_S = 30.0, 3600.0
PROBE_S = 120.0
"""Simulated seconds of the first probe; doubled until enough requests have finished."""
PROBE_REQUESTS, PROBE_STAYS, PROBE_DOUBLINGS = 60, 2.0, 5
"""A probe is long enough once this many requests have finished and it has lasted for this many of their mean stays. In
a shorter one only short answers end."""
PROBE_AT_ONCE, PROBE_FACTOR, PROBE_GAIN = 1024, 4, 1.1
"""Requests at once in the first probe; four times as many are tried while that serves a tenth more."""
MAX_POINTS = 100_000
Progress = Callable[[int, int, str], None]
"""Called with (points done, points in all, which one was done)."""
Plans = Plan | str | Path | Iterable[Plan | str | Path] | Mapping[str, Plan | str | Path]


def sweep(
    plans: Plans,
    *,
    rates: str | Sequence[float] = "auto",
    concurrency: Sequence[int] | None = None,
    workload: str | Workload = "azure-conversation",
    slo: SLO | None = None,
    policy: PolicyChoice = "helix",
    execution: Literal["range", "layerwise"] = "range",
    engine: str | EngineRecord | None = None,
    duration_s: float | None = None,
    warmup_s: float | None = None,
    seeds: int | Sequence[int] = 3,
    jobs: int | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Simulate plans at many rates, or with many requests at once, and find where they saturate.

    Parameters
    ----------
    plans
        A plan, plans, or name -> plan; a plan may be a file. Without names they are called after their method or file.
    rates
        Requests/s of an open loop: numbers, "1:20:1" (from, to, step), "0.5,1,2", or "auto": twelve rates from 0.1 to
        1.2 times what the best plan serves with full KV caches. "auto:20" takes as many.
    concurrency
        In place of `rates`, a closed loop: always this many requests are being served.
    workload
        azure-conversation, azure-code, poisson, constant, or requests, which are repeated and scaled to each rate.
    slo
        Limits of a request: adds goodput, attainment, and the highest rate at which it holds.
    policy, execution
        As in `helix_kit.simulate`.
    engine
        The serving engine, as in `helix_kit.simulate`; None: the engine that each plan is for, or our runtime.
    duration_s, warmup_s
        Simulated seconds that are measured, and seconds before. None: 3 and 2.5 times as long as a request stays on
        average with full KV caches, at least 30 s.
    seeds
        How many seeds, or which: each point is simulated with each of them.
    jobs
        Simulations at the same time. None: one for each core. A policy that is an object runs in this process alone.
    resume
        A file that keeps every point as soon as it is done. Points that it holds already are not simulated again.
    progress
        Called with (points done, points in all, which one was done).

    Returns
    -------
    Sweep
        The curves; `.plot()` draws them.

    Raises
    ------
    InputError
        No plan, an unknown workload, or rates or concurrencies that are not positive.

    Examples
    --------
    >>> from helix_kit import Cluster, Model, Problem
    >>> problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    >>> fast = problem.cluster.nodes[0].name
    >>> plan = Plan.from_placement(problem, {fast: (0, 15), problem.cluster.nodes[1].name: (15, 30)}, method="hand")
    >>> found = sweep(plan, rates=[0.5, 1.0], duration_s=60, warmup_s=10, seeds=1, jobs=1)     # doctest: +SKIP
    >>> found.curves["hand"].column("regime")                                                  # doctest: +SKIP
    ['stable', 'stable']
    """
    named = _named(plans)
    if engine is not None:
        record = load_engine(engine) if isinstance(engine, str) else engine
        named = {name: plan.model_copy(update={"engine": record}) for name, plan in named.items()}
    _check(workload, policy, execution, concurrency)
    chosen_seeds = range(seeds) if isinstance(seeds, int) else seeds
    if not len(chosen_seeds):
        raise InputError("expected at least one seed", where="sweep", field="seeds", value=seeds)
    asked = _asked_rates(rates) if concurrency is None else []
    probe = None
    if warmup_s is None or duration_s is None or not isinstance(asked, list):
        probe = _Probe(named, SweepOptions(workload=workload, policy=policy, execution=execution, warmup_s=0.0,
                                           duration_s=PROBE_S))  # fmt: skip
    options = SweepOptions(
        workload=workload, slo=slo, policy=policy, execution=execution,
        warmup_s=_within(WARMUP_STAYS * probe.stay_s) if warmup_s is None and probe else warmup_s or 0.0,
        duration_s=_within(MEASURED_STAYS * probe.stay_s) if duration_s is None and probe else duration_s or 0.0,
    )  # fmt: skip
    for field, value in (("duration_s", options.duration_s), ("warmup_s", options.warmup_s)):
        if not 0 <= value < math.inf or (field == "duration_s" and value == 0):
            raise InputError("expected a positive number of seconds", where="sweep", field=field, value=value)
    loads: list[tuple[float | None, int | None]] = [(None, n) for n in concurrency or ()]
    if concurrency is None:
        used = asked if isinstance(asked, list) else _spread(probe.rate_per_s if probe else 0.0, asked)
        loads = [(rate, None) for rate in used]
    points = [Point(name, rate, at_once, seed) for name in named for rate, at_once in loads for seed in chosen_seeds]
    if len(points) > MAX_POINTS:
        raise InputError(f"expected at most {MAX_POINTS:,} points", where="sweep", field="rates", value=len(points))
    rows = rows_of(
        points, named, options, jobs=jobs or os.cpu_count() or 1, kept=Kept(Path(resume) if resume else None),
        tell=progress or (lambda done, of, what: None),
    )  # fmt: skip
    facts = {
        "workload": workload.source if isinstance(workload, Workload) else workload,
        "policy": policy_name(policy), "execution": execution, "warmup_s": options.warmup_s,
        "duration_s": options.duration_s, "seeds": list(chosen_seeds), "slo": None if slo is None else str(slo),
        "helix_kit": __version__,
    }  # fmt: skip
    return Sweep(tuple(rows), slo, facts)


def _check(workload: str | Workload, policy: PolicyChoice, execution: str, concurrency: Sequence[int] | None) -> None:
    """Refuse what no simulation of the sweep could do, before any is started."""
    if isinstance(workload, str):
        check_name(workload)
    resolve_policy(policy)
    if execution not in {"range", "layerwise"}:
        raise InputError("expected range or layerwise", where="sweep", field="execution", value=execution)
    if concurrency is None:
        return
    if execution == "layerwise":
        raise InputError("a closed loop needs execution range", where="sweep", field="execution", value=execution)
    if not len(concurrency):
        raise InputError("expected at least one number of requests", where="sweep", field="concurrency")
    for value in concurrency:
        if int(value) != value or value < 1:
            raise InputError("expected whole numbers of requests, from 1", field="concurrency", value=value)


def _asked_rates(rates: str | Sequence[float]) -> list[float] | int:
    """The rates; for ``auto`` how many."""
    expected = "expected auto, auto:COUNT, FROM:TO:STEP, or positive rates such as 0.5,1,2"
    wrong = InputError(expected, where="sweep", field="rates", value=rates)
    if isinstance(rates, str):
        head, _, tail = rates.partition(":")
        if head == "auto":
            if tail and not (tail.isdecimal() and len(tail) < 7 and 1 < int(tail) <= MAX_POINTS):
                raise wrong
            return int(tail) if tail else AUTO_RATES
        try:
            numbers = [float(part) for part in rates.replace(":", ",").split(",")]
        except ValueError:
            raise wrong from None
        if tail:
            if len(numbers) != 3 or not all(math.isfinite(n) and n > 0 for n in numbers) or numbers[1] < numbers[0]:
                raise wrong
            low, high, step = numbers
            if (high - low) / step > MAX_POINTS:
                raise wrong
            numbers = [low + step * i for i in range(int((high - low) / step + 1e-9) + 1)]
    else:
        numbers = [float(rate) for rate in rates]
    if not numbers or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise wrong
    return sorted({float(f"{n:.9g}") for n in numbers})


def _spread(most_per_s: float, number: int) -> list[float]:
    """Evenly spaced rates around the knee, with three digits."""
    low, high = AUTO_RANGE
    shares = [low + (high - low) * i / (number - 1) for i in range(number)]
    return sorted({float(f"{most_per_s * share:.3g}") for share in shares})


def _within(seconds: float) -> float:
    return float(round(min(max(seconds, SHORTEST_S), LONGEST_S)))


class _Probe:
    """What plans serve with full KV caches: the most requests/s, and how long a request stays at most on average."""

    def __init__(self, plans: Mapping[str, Plan], options: SweepOptions) -> None:
        self.rate_per_s, self.stay_s = 0.0, 0.0
        for plan in plans.values():
            rate, stay = _served_offline(plan, options)
            self.rate_per_s, self.stay_s = max(self.rate_per_s, rate), max(self.stay_s, stay)
        if self.rate_per_s <= 0:
            raise InputError("expected plans that finish requests: none was finished", where="sweep", field="plans")


def _served_offline(plan: Plan, options: SweepOptions) -> tuple[float, float]:
    """Requests/s and mean stay in s of a plan with a backlog.

    As many requests run at once as the KV caches hold, at first at most `PROBE_AT_ONCE`. A machine with much memory may
    hold more requests than keep it busy, and further ones only wait. More are tried while they raise the throughput.
    """
    at_once, best = PROBE_AT_ONCE, _served_at_once(plan, options, PROBE_AT_ONCE)
    while best.is_at_limit:
        at_once *= PROBE_FACTOR
        more = _served_at_once(plan, options, at_once)
        if more.rate_per_s < PROBE_GAIN * best.rate_per_s:
            break
        best = more
    return best.rate_per_s, best.stay_s


class _Served(NamedTuple):
    """What one probe measured."""

    rate_per_s: float
    stay_s: float
    is_at_limit: bool
    """Whether as many requests ran at once as were let in."""


def _served_at_once(plan: Plan, options: SweepOptions, at_once: int) -> _Served:
    """Requests/s and mean stay with at most `at_once` requests at once, over a window that is long enough for both."""
    window_s = options.duration_s
    backlogs = closed_loop_requests(options, 0)
    requests = next(backlogs)
    limit = at_most(plan, at_once) if options.execution == "range" else {}
    for doublings in range(2 * PROBE_DOUBLINGS):
        run = whole_run(plan, requests, mode="offline", execution=options.execution, warmup_s=window_s / 2,
                        duration_s=window_s, **limit)  # fmt: skip
        stays = run.measures()["e2el_s"]
        mean_s = float(stays.mean()) if len(stays) else math.inf
        is_long_enough = len(stays) >= PROBE_REQUESTS and window_s >= PROBE_STAYS * mean_s
        is_used_up = not any(r.outcome == "in_flight" and r.started_s is None for r in run.records)
        if is_used_up and not all(r.outcome == "rejected" for r in run.records):
            requests = next(backlogs)
        elif is_long_enough or doublings >= PROBE_DOUBLINGS:
            break
        else:
            window_s *= 2
    reached = peak_concurrency(run.times, run.window) >= at_once
    return _Served(len(stays) / window_s, min(mean_s, window_s), reached and bool(limit))


def _named(plans: Plans) -> dict[str, Plan]:
    """Name -> plan."""
    if isinstance(plans, Plan | str | Path):
        plans = [plans]
    if isinstance(plans, Mapping):
        named = {str(name): plan if isinstance(plan, Plan) else Plan.load(plan) for name, plan in plans.items()}
    else:
        named = {}
        for given in plans:
            plan = given if isinstance(given, Plan) else Plan.load(given)
            base = plan.method if isinstance(given, Plan) else Path(given).stem
            alike = sum(name == base or name.startswith(f"{base} ") for name in named)
            named[base if not alike else f"{base} {alike + 1}"] = plan
    if not named:
        raise InputError("expected at least one plan", where="sweep", field="plans")
    for name, plan in named.items():
        if plan.flow_tokens_per_s <= 0:
            raise InputError("expected a plan that carries flow", where="sweep", field=f"plans[{name!r}]", value=0)
    return named


__all__ = ["sweep"]
