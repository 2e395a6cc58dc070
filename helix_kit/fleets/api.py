"""`fleet`: a model, a load, an SLO and machines on offer in; the cheapest fleet out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from helix_kit._summary import number, percent
from helix_kit.cluster import Cluster, Link, Network
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.fleets.check import Capacity, Checker, Load
from helix_kit.fleets.clock import RunClock
from helix_kit.fleets.offers import Offer, offers_of
from helix_kit.fleets.patterns import Pattern, Setting, machines_of, patterns_of
from helix_kit.fleets.program import MAX_MACHINES, Limits, largest_choice
from helix_kit.fleets.result import Checked, Fleet
from helix_kit.fleets.search import Candidate, Search
from helix_kit.metrics import SLO
from helix_kit.model import Model, load_model
from helix_kit.placement.solvers import check_solver
from helix_kit.placement.watch import Stop, Watch
from helix_kit.profiles import Profile, profiles_for
from helix_kit.scheduling import PolicyChoice
from helix_kit.typical_request import MeanLengths
from helix_kit.workload.lengths import PlannedFor, mean_lengths, workload_for
from helix_kit.workload.named import SAMPLED, SYNTHETIC
from helix_kit.workload.workload import Workload

TIMES_A_RUN = 10
"""A search takes about so many simulations at least: some rates of a pipeline, then a fleet with each seed."""
DRAWN_ARRIVALS = 2000
"""Poisson arrivals that are drawn for requests of equal lengths, and repeated."""


def fleet(
    model: Model | str | Path,
    rate_per_s: float,
    *,
    slo: SLO,
    gpus: Sequence[str],
    workload: PlannedFor = "azure-conversation",
    stock: Mapping[str, int] | None = None,
    budget_usd_per_hour: float | None = None,
    prices: Mapping[str, float] | None = None,
    payment: str = "on_demand",
    profiles: Mapping[str, Profile] | None = None,
    link: Link | None = None,
    engine: str | None = None,
    policy: PolicyChoice = "helix",
    max_stages: int | None = None,
    solver: str = "highs",
    seeds: int = 2,
    seed: int = 0,
    time_limit_s: float = 120.0,
    stop: Stop | None = None,
    progress: Callable[[str], None] | None = None,
) -> Fleet:
    """The cheapest machines that serve a rate within an SLO, in pipelines of one kind or of several.

    An integer program chooses how many of which pipelines (`helix_kit.fleets.program`). What a pipeline serves within
    the SLO is simulated for those that the program would choose, and estimated from above for all others, so that the
    solver's bound holds for all pipelines that may be built. It rests on the estimates, and on each pipeline's rate by
    itself: a fleet whose pipelines even out bursts may cost less. At last whole fleets are simulated, and the
    cheapest one that keeps the SLO is returned.

    Parameters
    ----------
    model
        What is served: a preset, a file, or a `Model`.
    rate_per_s
        Requests/s to serve.
    slo
        Limits of a request, and the share of requests that should keep them.
    gpus
        Machines on offer: GPUs of the catalogue, or ``L4x2`` for a machine with two.
    workload
        Requests: a sampled workload by name, a trace file, a `Workload`, or a pair (input tokens, output tokens) for
        Poisson arrivals of equal requests.
    stock
        Kind -> how many there are; kinds that are left out are not limited.
    budget_usd_per_hour
        What the fleet may cost at most.
    prices
        GPU -> USD per hour, in place of the catalogue's.
    payment
        Which price of the catalogue counts: on_demand, reserved or spot.
    profiles
        Measured profiles by kind of machine.
    link
        Network between any two machines. None: that of a cluster file, 10 Gbit/s and 1 ms.
    engine
        The engine that is simulated, such as ``vllm-0.15``. None: our runtime.
    policy
        How pipelines are chosen, as in `helix_kit.simulate`.
    max_stages
        Machines of a pipeline at most; None: see `helix_kit.fleets.patterns.patterns_of`.
    solver
        highs, glpk or gurobi.
    seeds
        Simulations of each fleet, pooled.
    seed
        Seed of requests and policy.
    time_limit_s
        Seconds for the search. What a simulation takes is known from those before it: one that would take too much of
        the time left is made shorter, and none is begun that would not end in time.
    stop
        A `threading.Event` or callable; once it is set, the cheapest fleet so far is returned.
    progress
        Called with a line of text after each step.

    Returns
    -------
    Fleet
        Price, bound, plan, the fleets of one kind, and the runners-up.

    Raises
    ------
    InputError
        For an unknown GPU, one without a price, or a wrong option.
    InfeasibleError
        When no fleet keeps the SLO (how near the best comes), stock or budget are too small (what they suffice for), or
        no fleet could be simulated in time (what one takes).

    Examples
    --------
    >>> found = fleet("llama3.1-8b", 1.0, slo=SLO(tpot_s=0.12), gpus=["L4", "A100-80G"])      # doctest: +SKIP
    >>> found.usd_per_hour <= min(one.usd_per_hour for one in found.of_one_kind.values())   # doctest: +SKIP
    True
    """
    _check(rate_per_s, budget_usd_per_hour, seeds, time_limit_s, max_stages)
    check_solver(solver)
    described = model if isinstance(model, Model) else load_model(model)
    watch = Watch(time_limit_s, stop=stop)
    offers = offers_of(list(gpus), stock=stock, prices=prices, payment=payment)
    requests, lengths = _requests(workload, seed)
    load = Load(
        model=described, workload=requests, slo=slo, lengths=lengths, profiles=profiles,
        link=link or Network().within_region, policy=policy, engine=engine, seed=seed,
    )  # fmt: skip
    setting = Setting(offers, described, _profiles(offers, load), lengths, tpot_s=slo.tpot_s, hop_s=load.link.latency_s)
    patterns = patterns_of(setting, max_stages)
    if not patterns:
        raise InfeasibleError(
            f"no pipeline of {_kinds(offers)} holds {described.name}"
            + (f" with at most {max_stages} machines" if max_stages else ""),
            fix="offer machines with more memory, more machines, or longer pipelines",
        )
    limits = Limits({o.kind: o.stock for o in offers if o.stock is not None}, budget_usd_per_hour, solver)
    clock = RunClock(watch)
    checker = Checker(load, offers, clock)
    checker.should_stop = watch.is_over
    search = Search(checker, rate_per_s, limits, watch)
    search.tell = progress or (lambda text: None)
    search.measure_each_kind(patterns)
    # The fleets of one kind may take half of the time: they are baselines, without the budget. No kind may use up the
    # time of those after it.
    ones: dict[str, list[Candidate]] = {}
    for at, offer in enumerate(offers):
        left_s = max(0.0, time_limit_s / 2 - watch.seconds) / (len(offers) - at)
        alone = search.without_budget().with_time(watch.for_part(left_s))
        own = [p for p in patterns if set(p.uses) == {offer.kind}]
        alone.settle(own)
        ones[offer.kind] = alone.fleets(own, seeds)
    choice = search.settle(patterns)
    mixed = search.fleets(patterns, seeds)
    budget = math.inf if budget_usd_per_hour is None else budget_usd_per_hour + 1e-9
    tried = [c for c in (*mixed, *(c for found in ones.values() for c in found)) if c.usd_per_hour <= budget]
    kept = [c for c in tried if c.holds]
    if not kept:
        if not tried and (checker.is_late or not checker.capacities):
            raise _out_of_time(clock, watch)
        raise _infeasible(search, checker, patterns, tried, limits, rate_per_s, load)
    best = min(kept, key=lambda c: (c.usd_per_hour, -c.outcome.attainment))
    # A fleet of one kind may also have come from the choice among all pipelines.
    of_one_kind = {
        kind: _checked(min(holding, key=lambda c: c.usd_per_hour), checker)
        for kind, found in ones.items()
        if (holding := [c for c in (*found, *mixed) if c.holds and c.kinds == {kind}])
    }
    others = {tuple(sorted((p.text, n) for p, n in c.count.items())): c for c in tried if c.count != best.count}
    return Fleet(
        rate_per_s=rate_per_s,
        slo=slo,
        best=_checked(best, checker),
        bound_usd_per_hour=min(choice.bound if choice else 0.0, best.usd_per_hour),
        plan=best.plan,
        of_one_kind=of_one_kind,
        others=tuple(_checked(c, checker) for c in sorted(others.values(), key=lambda c: c.usd_per_hour)),
        prices={offer.kind: offer.usd_per_hour for offer in offers},
        facts={
            "model": described.name,
            "workload": requests if isinstance(requests, str) else requests.source,
            "lengths": str(lengths),
            "payment": payment,
            "engine": engine or "helix-kit",
            "patterns": len(patterns),
            "measured_pipelines": len(checker.capacities),
            "simulations": checker.simulations,
            "seconds": round(watch.seconds, 2),
            "is_complete": not watch.is_over(),
            "was_stopped": watch.stopped(),
        },
    )


def _check(rate_per_s: float, budget: float | None, seeds: int, time_limit_s: float, max_stages: int | None) -> None:
    """Raise InputError for numbers that make no sense."""
    for field, value in (("rate_per_s", rate_per_s), ("budget_usd_per_hour", budget), ("time_limit_s", time_limit_s)):
        if value is not None and not 0 < value < math.inf:
            raise InputError("expected a positive number", where="fleet", field=field, value=value)
    for field, count in (("seeds", seeds), ("max_stages", max_stages)):
        if count is not None and count < 1:
            raise InputError("expected a whole number of at least 1", where="fleet", field=field, value=count)


def _requests(workload: PlannedFor, seed: int) -> tuple[str | Workload, MeanLengths]:
    """What is simulated, and its mean lengths."""
    found = workload_for(workload)
    lengths = mean_lengths(found)
    if isinstance(workload, str) and (workload in SAMPLED or workload in SYNTHETIC):
        return workload, lengths
    if isinstance(found, MeanLengths):
        equal = Workload.poisson(
            1.0, DRAWN_ARRIVALS, input_tokens=round(found.input_tokens), output_tokens=round(found.output_tokens),
            seed=seed,
        )  # fmt: skip
        return equal, lengths
    return found, lengths


def _profiles(offers: Sequence[Offer], load: Load) -> dict[str, Profile]:
    """By kind, as a cluster of one machine of each kind has them."""
    nodes = [{"gpu": o.gpu, "gpus_per_node": o.gpus_per_node, "name": o.kind} for o in offers]
    cluster = Cluster.model_validate({"name": "offers", "nodes": nodes})
    return profiles_for(cluster, load.model, load.profiles)


def _kinds(offers: Sequence[Offer]) -> str:
    limited = [o.kind if o.stock is None else f"{o.kind} ({o.stock} of them)" for o in offers]
    return ", ".join(limited)


def _out_of_time(clock: RunClock, watch: Watch) -> InfeasibleError:
    """That no fleet was simulated, and what it takes to simulate one."""
    if watch.stopped():
        return InfeasibleError("the search was stopped before a fleet was simulated")
    words = f"no fleet could be simulated within {number(watch.time_limit_s)} s"
    if not clock.refused_s:
        return InfeasibleError(words, fix="a longer time limit")
    takes_s = clock.refused_s
    return InfeasibleError(
        f"{words}: one simulation takes about {number(takes_s)} s",
        fix=f"a time limit of about {number(TIMES_A_RUN * takes_s)} s",
    )


def _checked(candidate: Candidate, checker: Checker) -> Checked:
    """The candidate as a result."""
    return Checked(
        machines=machines_of(candidate.count),
        usd_per_hour=candidate.usd_per_hour,
        holds=candidate.holds,
        attainment=candidate.outcome.attainment,
        kept_by_limit=candidate.outcome.kept_by_limit,
        at_share=candidate.outcome.percentiles,
        pipelines=tuple(
            {
                "pipeline": pattern.text,
                "count": n,
                "usd_per_hour": pattern.usd_per_hour,
                "rate_per_s": checker.capacities[pattern].rate_per_s,
            }
            for pattern, n in candidate.count.items()
        ),
    )


def _infeasible(
    search: Search,
    checker: Checker,
    patterns: Sequence[Pattern],
    tried: Sequence[Candidate],
    limits: Limits,
    rate_per_s: float,
    load: Load,
) -> InfeasibleError:
    """Why no fleet was found, and how near the best comes."""
    slo = load.slo
    if not any(capacity.rate_per_s for capacity in checker.capacities.values()):

        def nearness(item: tuple[Pattern, Capacity]) -> tuple[float, float]:
            idle = item[1].idle
            over = [idle.percentiles.get(f"{name}_s", math.inf) / limit for name, limit in slo.limits.items()]
            return idle.attainment, -max(over)

        pattern, capacity = max(checker.capacities.items(), key=nearness)
        values = ", ".join(
            f"{name.upper()} {number(capacity.idle.percentiles[f'{name}_s'])} s against {number(limit)} s"
            for name, limit in slo.limits.items()
            if f"{name}_s" in capacity.idle.percentiles
        )
        return InfeasibleError(
            f"no fleet keeps {slo}: the best pipeline, {pattern.text}, keeps it for "
            f"{percent(capacity.idle.attainment)} of the requests even when idle ({values} at the share {slo.at:g})",
            fix="raise the limits, lower the share, or offer faster machines",
        )
    rates = search.measured(patterns)
    if limits.stock or limits.budget_usd_per_hour is not None:
        cheaper = [c for c in tried if c.holds]
        most = None if cheaper else _largest(rates, limits)
        if most is not None and most < rate_per_s:
            words = [f"{n} {kind}" for kind, n in limits.stock.items()]
            if limits.budget_usd_per_hour is not None:
                words.append(f"{limits.budget_usd_per_hour:g} USD/h")
            whole = search.without_budget().settle(patterns)
            costs = "" if whole is None else f"; without a budget it takes about {whole.value:.2f} USD/h"
            return InfeasibleError(
                f"{' and '.join(words)} suffice for about {number(most)} of {number(rate_per_s)} requests/s within "
                f"{slo}{costs}",
                fix=f"serve at most {number(most)} requests/s, or raise the budget or the stock",
            )
    if tried:
        nearest = max(tried, key=lambda c: c.outcome.attainment)
        reason = " while the number of requests in the system grows" if nearest.outcome.is_overloaded else ""
        return InfeasibleError(
            f"no simulated fleet keeps {slo} at {number(rate_per_s)} requests/s: the nearest costs "
            f"{nearest.usd_per_hour:.2f} USD/h and keeps it for {percent(nearest.outcome.attainment)}{reason}",
            fix="raise time_limit_s, the limits, or the stock",
        )
    return InfeasibleError(
        f"no fleet of at most {MAX_MACHINES} machines for {number(rate_per_s)} requests/s was found",
        fix="offer faster machines, or raise time_limit_s",
    )


def _largest(rates: Mapping[Pattern, float], limits: Limits) -> float | None:
    """Requests/s of the best fleet within stock and budget; None where some kind is free of both."""
    usable = {p: rate for p, rate in rates.items() if rate}
    if limits.budget_usd_per_hour is None and any(not set(p.uses) <= set(limits.stock) for p in usable):
        return None
    choice = largest_choice(usable, limits)
    return 0.0 if choice is None else choice.value


__all__ = ["fleet"]
