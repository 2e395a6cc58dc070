"""What a pipeline or a whole fleet serves within the SLO, by simulation.

A fleet becomes a plan whose flow gives each pipeline requests in proportion to the rate that it serves within the SLO
by itself. Warm-up and window last for some mean stays of a request, so that the number of requests has settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from helix_kit.cluster import COORDINATOR, Cluster, Link, Network
from helix_kit.fleets.clock import OutOfTimeError, RunClock
from helix_kit.fleets.offers import Offer
from helix_kit.fleets.patterns import Pattern, machines_of
from helix_kit.flow import Flow
from helix_kit.metrics import SLO
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.profiles import Profile
from helix_kit.report import Run
from helix_kit.scheduling import PolicyChoice
from helix_kit.scheduling.policies import fresh_policy
from helix_kit.simulator import whole_run
from helix_kit.sweeps import SweepOptions, backlog_of, regime_of
from helix_kit.sweeps.load import requests_at
from helix_kit.typical_request import MeanLengths
from helix_kit.workload.workload import Workload

PROBE_REQUESTS, FLEET_REQUESTS = 300, 1000
"""Requests of a measured window, of one pipeline and of a fleet: a share of 99 % leaves 3 and 10 that may be late."""
WARMUP_STAYS, MEASURED_STAYS = 2.0, 4.0
"""Warm-up and window at least, in mean stays of a request in a pipeline at the edge of the SLO."""
LOADED_STAYS = 3.0
"""Such a stay in stays in the idle pipeline, where no limit of the SLO says it."""
SEED_STEP = 997
"""From one seed to the next. Given requests are repeated from a place that the seed says: they should differ."""
IDLE_REQUESTS = 100
"""Requests that are served one at a time to see whether an idle pipeline keeps the SLO."""
PRECISION = 0.03
"""Relative precision of the rate that a pipeline serves."""
RISE = 1.5
"""Factor from one rate to the next while the rate is bracketed."""
FIRST_GAP_S, GAP_FACTOR = 10.0, 4
"""Seconds between the requests of an idle pipeline at first, and from one try to the next."""
RUN_SHARE = 1 / 3
"""Share of the time left that one simulation may take: a longer one is made shorter."""
LEAST_BUSY = 0.1
"""Requests in a pipeline on average below which it counts as one that cannot keep the SLO: it is all but idle."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is served, and how it is simulated.

    Examples
    --------
    >>> Load(model=Model.preset("llama3.1-8b"), workload="poisson", slo=SLO(tpot_s=0.1)).policy
    'helix'
    """

    model: Model
    """What is served."""
    workload: str | Workload
    """A workload by name, or requests, which are repeated and scaled to each rate."""
    slo: SLO
    """Limits of a request."""
    lengths: MeanLengths = field(default_factory=lambda: MeanLengths(1, 1))
    """Mean lengths of the requests."""
    profiles: Mapping[str, Profile] | None = None
    """Measured profiles by kind, in place of the shipped ones."""
    link: Link = field(default_factory=lambda: Network().within_region)
    """The link between any two machines."""
    policy: PolicyChoice = "helix"
    """How pipelines are chosen."""
    engine: str | None = None
    """A serving engine, as in `helix_kit.simulate`."""
    seed: int = 0
    """Seed of requests and policy."""


@dataclass(frozen=True)
class Outcome:
    """How a simulation went.

    Examples
    --------
    >>> Outcome(attainment=0.995, is_overloaded=False, kept_by_limit={"tpot": 0.995}, percentiles={}).holds(0.99)
    True
    """

    attainment: float
    """Share of the decided requests that kept all limits."""
    is_overloaded: bool
    """Whether the number of requests in the system grew."""
    kept_by_limit: dict[str, float]
    """Limit -> share that kept it."""
    percentiles: dict[str, float]
    """ttft_p99_s, tpot_p99_s and so on, at the SLO's share."""

    def holds(self, at: float) -> bool:
        """Whether the SLO holds for this share."""
        return not self.is_overloaded and self.attainment >= at


@dataclass(frozen=True)
class Capacity:
    """What one pipeline serves within the SLO.

    Examples
    --------
    >>> Capacity(0.0, Outcome(0.7, False, {}, {})).rate_per_s
    0.0
    """

    rate_per_s: float
    """Requests/s; 0 if even the idle pipeline breaks the SLO."""
    idle: Outcome
    """The pipeline with one request at a time."""


def fleet_plan(
    load: Load, offers: Sequence[Offer], count: Mapping[Pattern, int], rates: Mapping[Pattern, float]
) -> Plan:
    """A plan of a fleet, each pipeline by itself.

    Parameters
    ----------
    load
        Model, lengths and network.
    offers
        Machines on offer, for prices.
    count
        Pattern -> pipelines of it.
    rates
        Pattern -> requests/s, by which requests are divided among the pipelines.

    Returns
    -------
    Plan
        Its cluster holds the fleet's machines.

    Examples
    --------
    >>> from helix_kit.fleets.offers import offers_of
    >>> two = Pattern((("L4", 16), ("L4", 16)), 1.42, 1.0)
    >>> load = Load(model=Model.preset("llama3.1-8b"), workload="poisson", slo=SLO(tpot_s=1),
    ...             lengths=MeanLengths(500, 100))
    >>> fleet_plan(load, offers_of(["L4"]), {two: 1}, {two: 1.0}).placement
    {'L4-0': (0, 16), 'L4-1': (16, 32)}
    """
    machines = machines_of(count)
    chosen = [offer for offer in offers if machines.get(offer.kind)]
    cluster = Cluster.model_validate(
        {
            "name": "fleet",
            "nodes": [{"gpu": o.gpu, "gpus_per_node": o.gpus_per_node, "count": machines[o.kind]} for o in chosen],
            "network": {"within_region": load.link.model_dump()},
            "prices": {o.gpu: o.usd_per_hour / o.gpus_per_node for o in chosen},
        }
    )
    names = {o.kind: iter([n.name for n in cluster.nodes if n.kind == o.kind]) for o in chosen}
    placement: dict[str, tuple[int, int]] = {}
    flows: list[tuple[list[str], float]] = []
    for pattern, n in count.items():
        for _ in range(n):
            nodes, start = [], 0
            for kind, layers in pattern.stages:
                nodes.append(next(names[kind]))
                placement[nodes[-1]] = (start, start + layers)
                start += layers
            flows.append((nodes, rates[pattern] * load.lengths.tokens))
    problem = Problem.of(cluster, load.model, load.profiles, load.lengths)
    # The flow may not exceed what machines and links are taken to carry; the shares of the pipelines stay.
    full = problem.max_flow(placement)
    edges = {
        edge: flow for nodes, flow in flows for edge in zip([COORDINATOR, *nodes], [*nodes, COORDINATOR], strict=True)
    }
    through = {(node, node): flow for nodes, flow in flows for node in nodes}
    scale = min(full.capacities[edge] / flow for edge, flow in (edges | through).items())
    scale = min(1.0, scale * (1 - 1e-9))
    carried = Flow(
        sum(flow for _, flow in flows) * scale,
        {edge: flow * scale for edge, flow in edges.items()},
        full.capacities,
        (),
    )
    return Plan.from_placement(problem, placement, method="fleet", flow=carried, seed=load.seed)


class Checker:
    """Simulates pipelines and fleets for one load, and remembers what pipelines serve.

    Parameters
    ----------
    load
        What is served.
    offers
        Machines on offer.
    clock
        Says how long simulations are; None: as long as usual.
    """

    def __init__(self, load: Load, offers: Sequence[Offer], clock: RunClock | None = None) -> None:
        self._load, self._offers = load, offers
        self._clock = clock or RunClock(Watch(math.inf))
        self._stays: dict[Pattern, float] = {}
        self.capacities: dict[Pattern, Capacity] = {}
        """Pattern -> what a pipeline of it serves, as far as measured."""
        self.simulations = 0
        """Simulations so far."""
        self.is_late = False
        """Whether there was no time to simulate some fleet."""
        self.should_stop: Callable[[], bool] = lambda: False
        """Polled between simulations of a pipeline."""

    @property
    def at(self) -> float:
        """Share of the requests that should keep the SLO."""
        return self._load.slo.at

    def measure(self, pattern: Pattern, guess_per_s: float) -> Capacity:
        """What one pipeline serves within the SLO: the highest rate, found from a guess.

        Raises OutOfTimeError where no rate could be found in time.
        """
        if pattern in self.capacities:
            return self.capacities[pattern]
        plan = fleet_plan(self._load, self._offers, {pattern: 1}, {pattern: 1.0})
        idle = self._idle(plan, pattern)
        rate = 0.0
        if idle.holds(self._load.slo.at):
            rate = self._highest_rate(plan, pattern, guess_per_s)
        self.capacities[pattern] = Capacity(rate, idle)
        return self.capacities[pattern]

    def check(self, count: Mapping[Pattern, int], rate_per_s: float, seeds: int) -> tuple[Plan, Outcome]:
        """A fleet at its rate, pooled over as many seeds as there is time for.

        Raises OutOfTimeError where there is none.
        """
        rates = {pattern: self.capacities[pattern].rate_per_s for pattern in count}
        plan = fleet_plan(self._load, self._offers, count, rates)
        stay_s = max(self._loaded_stay_s(pattern) for pattern in count)
        chosen = [self._load.seed + SEED_STEP * (1 + i) for i in range(seeds)]
        carried = {pattern: n * rates[pattern] for pattern, n in count.items()}
        stages = sum(len(p.stages) * rate for p, rate in carried.items()) / (sum(carried.values()) or 1.0)
        runs: list[Run] = []
        for one in chosen:
            try:
                runs.append(self._run(plan, rate_per_s, stay_s, FLEET_REQUESTS, one, stages=stages))
            except OutOfTimeError:
                if not runs:
                    self.is_late = True
                    raise
                break
        return plan, _outcome(runs, self._load.slo)

    def _highest_rate(self, plan: Plan, pattern: Pattern, guess_per_s: float) -> float:
        def holds(rate: float) -> bool:
            stay_s, stages = self._loaded_stay_s(pattern), len(pattern.stages)
            run = self._run(plan, rate, stay_s, PROBE_REQUESTS, self._load.seed, stages=stages)
            return _outcome([run], self._load.slo).holds(self._load.slo.at)

        least = LEAST_BUSY / self._stays[pattern]
        low, high, rate = 0.0, math.inf, max(guess_per_s, least)
        while rate >= least:
            try:
                if self.should_stop():
                    raise OutOfTimeError
                if holds(rate):
                    low = rate
                else:
                    high = rate
            except OutOfTimeError:
                if not low:
                    raise
                break
            if low and high < math.inf and high <= low * (1 + PRECISION):
                break
            rate = low * RISE if high == math.inf else high / RISE if not low else math.sqrt(low * high)
        return low

    def _loaded_stay_s(self, pattern: Pattern) -> float:
        """Mean stay of a request where the SLO just holds: at its limit for TPOT, or some idle stays."""
        slo, idle_s = self._load.slo, self._stays[pattern]
        stay_s = LOADED_STAYS * idle_s
        if slo.tpot_s is not None:
            stay_s = max(idle_s, slo.tpot_s * self._load.lengths.output_tokens)
        return stay_s if slo.e2el_s is None else min(stay_s, max(idle_s, slo.e2el_s))

    def _idle(self, plan: Plan, pattern: Pattern) -> Outcome:
        """Requests far apart: their gaps grow until almost all are alone."""
        gap_s, least_s = FIRST_GAP_S, self._least_stay_s(plan)
        while gap_s < least_s:  # no request would be alone
            gap_s *= GAP_FACTOR
        while True:
            work = IDLE_REQUESTS * len(pattern.stages) * self._load.lengths.output_tokens
            requests = round(self._clock.effort(work, RUN_SHARE) * IDLE_REQUESTS)
            options = self._options(0.0, gap_s * requests)
            given = requests_at(options, 1 / gap_s, self._load.seed)
            rows = [(i * gap_s, r.input_tokens, r.output_tokens) for i, r in enumerate(given[:requests])]
            with self._clock.timed(work * requests / IDLE_REQUESTS):
                run = self._simulate(plan, Workload.of(rows, given.source), 0.0, gap_s * (requests + 1))
            stays = run.measures()["e2el_s"]
            stay_s = float(np.mean(stays)) if len(stays) else gap_s
            if stay_s <= gap_s / 2 or gap_s > 1e5:
                break
            gap_s *= GAP_FACTOR
        self._stays[pattern] = stay_s
        return _outcome([run], self._load.slo)

    def _least_stay_s(self, plan: Plan) -> float:
        """Seconds that a mean request surely stays when it is alone: its decodes, by our runtime's profiles."""
        if self._load.engine is not None:
            return 0.0
        decode_ms = sum(
            (end - start) * plan.problem.profile_of(node, start, end).decode_ms_per_layer(1)
            for node, (start, end) in plan.placement.items()
        )
        return (self._load.lengths.output_tokens - 1) * decode_ms / 1e3

    def _run(self, plan: Plan, rate_per_s: float, stay_s: float, requests: int, seed: int, *, stages: float) -> Run:
        warmup_s = WARMUP_STAYS * stay_s
        duration_s = max(MEASURED_STAYS * stay_s, requests / rate_per_s)
        work = rate_per_s * (warmup_s + duration_s) * stages * self._load.lengths.output_tokens
        effort = self._clock.effort(work, RUN_SHARE)
        if effort < 1:
            warmup_s, duration_s = effort * warmup_s, effort * duration_s
        workload = requests_at(self._options(warmup_s, duration_s), rate_per_s, seed)
        if len(workload) == 0:  # An idle stretch of the trace.
            workload = Workload.constant(rate_per_s, warmup_s + duration_s)
        with self._clock.timed(effort * work):
            return self._simulate(plan, workload, warmup_s, duration_s)

    def _simulate(self, plan: Plan, workload: Workload, warmup_s: float, duration_s: float) -> Run:
        self.simulations += 1
        load = self._load
        return whole_run(plan, workload, policy=fresh_policy(load.policy), engine=load.engine, seed=load.seed,
                         warmup_s=warmup_s, duration_s=duration_s, progress=self._clock.look)  # fmt: skip

    def _options(self, warmup_s: float, duration_s: float) -> SweepOptions:
        return SweepOptions(workload=self._load.workload, slo=self._load.slo, warmup_s=warmup_s, duration_s=duration_s)


def _outcome(runs: Sequence[Run], slo: SLO) -> Outcome:
    """The runs together."""
    goods = [run.goodput(slo) for run in runs]
    decided = sum(good.decided for good in goods)
    kept = sum(good.kept for good in goods)
    finished = sum(len(run.measures()["e2el_s"]) for run in runs)
    percentiles = {}
    for name in slo.limits:
        values = np.concatenate([run.measures()[f"{name}_s"] for run in runs])
        if len(values):
            percentiles[f"{name}_s"] = float(np.quantile(values, slo.at))
    return Outcome(
        attainment=kept / decided if decided else 0.0,
        is_overloaded=regime_of([backlog_of(run.times, run.window) for run in runs]) == "overloaded",
        kept_by_limit={name: sum(g.kept_by_limit[name] for g in goods) / max(finished, 1) for name in slo.limits},
        percentiles=percentiles,
    )


__all__ = ["Capacity", "Load", "Outcome", "fleet_plan"]
