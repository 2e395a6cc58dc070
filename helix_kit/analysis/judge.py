"""Values of placements by the objective of a plan, found alike for the plan and for what it is compared with.

A flow plan is worth its maximum flow in tokens/s. A served plan is worth the decode tokens/s that the simulator
measures under full load, by the rules of the nodes that the plan was made for. Every placement is simulated on the same
request streams, one for each seed, so that differences are those of the placements and not of the requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from helix_kit.analysis.request_lengths import pairs_of
from helix_kit.cluster import Cluster
from helix_kit.flow import Flow, Placement
from helix_kit.metrics.intervals import half_interval
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles.engine_speed import check_engine
from helix_kit.search.capacity_shares import flow_with_shares
from helix_kit.search.moves import MOVES, neighbours
from helix_kit.search.predictor import Lengths, Predictor, lengths_of
from helix_kit.workload.lengths import LengthPairs

SEEDS = 3
"""Request streams that a served placement is simulated on."""
NEIGHBOURS = 20
"""Neighbours of a placement that local search looks at before it draws others."""
WARMUP_SHARE = 0.4
"""Share of the simulated seconds before the measurement, which begins when the machines are full."""
MAX_REQUESTS, MAX_SIMULATED_S = 400, 300.0
"""Length of a run at full effort: requests by the runtime's rules, seconds by the published ones."""
MIN_EFFORT = 0.1
"""Share of that length at least. Between the two it is what the time left allows."""
RUNS_SHARE = 0.8
"""Share of the seconds for simulations that these are planned to take: some take longer than those before."""
MIN_WARMUP_LIVES = 0.05
"""The shortest warm-up, in lives of the requests in the caches: before it no prompts are on their way."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A placement with its flow, in the cluster that it is judged in."""

    problem: Problem
    placement: Mapping[str, tuple[int, int]]
    flow: Flow


@dataclass(frozen=True)
class Worth:
    """Values of one placement in tokens/s, one a request stream (one alone for a flow)."""

    samples: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean value."""
        return float(np.mean(self.samples))

    def minus(self, other: Worth) -> tuple[float, float, float]:
        """The difference to another value, and the ends of its 95 % interval: of the pairs of the same stream."""
        pairs = np.array(self.samples) - np.array(other.samples)
        mean = float(pairs.mean())
        if len(pairs) < 2:
            return mean, mean, mean
        half = half_interval(pairs)
        return mean, mean - half, mean + half


@dataclass
class Judge:
    """Judges placements by the objective of a plan.

    Parameters
    ----------
    plan
        The plan whose objective counts.
    effort
        Length of each run of a served placement, as a share of the longest.
    """

    plan: Plan
    effort: float = 1.0
    run_s: float = 0.0
    """Seconds that a run took last, or is planned to take."""
    compiled_s: float = 0.0
    """Seconds that the first run took beyond the next: in these the simulator was loaded, or compiled."""
    _known: dict[tuple[object, ...], float] = field(default_factory=dict)
    _expected: WeakKeyDictionary[Entry, float] = field(default_factory=WeakKeyDictionary)
    _predictors: dict[int, Predictor] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        """Whether the plan's objective is what it serves in the simulator."""
        return self.plan.served is not None

    @property
    def unit(self) -> str:
        """What the values count."""
        return "decode tokens/s" if self.is_served else "tokens/s"

    @cached_property
    def _pairs(self) -> LengthPairs:
        """Lengths of the requests."""
        return pairs_of(self.plan)

    @cached_property
    def _lengths(self) -> Lengths | None:
        """The same for the predictor; None: those that it usually takes."""
        return lengths_of(self._pairs) if self._pairs else None

    @property
    def has_replicas(self) -> bool:
        """Whether the plan is for an engine of replicas, whose rules then decide: its pipelines share no machine."""
        return self.plan.engine is not None and self.plan.engine.execution == "replicas"

    def own(self) -> Entry:
        """The plan itself, with the flow that it has."""
        return Entry(self.plan.problem, self.plan.placement, self.plan.max_flow)

    def entry(self, problem: Problem, placement: Placement, *, as_planned: bool = False) -> Entry:
        """A placement with its flow by the plan's rules; `as_planned`: kinds keep the capacity shares of the plan."""
        partial = self.plan.partial_inference
        if self.has_replicas:
            links = list(self.plan.flow_edges) if as_planned else None
            flow = problem.max_flow(placement, partial_inference=partial, links=links, split=self.plan.flow_split)
            return Entry(problem, placement, flow)
        if self.is_served and self.plan.flow_split == "balanced":
            ease = dict(self.plan.served.ease) if as_planned and self.plan.served else {}
            flow = flow_with_shares(problem, placement, ease, partial_inference=partial)
        else:
            # Requests do not change between separate pipelines.
            links = list(self.plan.flow_edges) if as_planned and self.plan.method.startswith("separate") else None
            flow = problem.max_flow(placement, partial_inference=partial, links=links, split=self.plan.flow_split)
        return Entry(problem, placement, flow)

    def expected(self, entry: Entry) -> float:
        """The flow, or what a served placement is predicted to serve, without a simulation. It is found once."""
        if not self.is_served or entry.flow.tokens_per_s <= 0:
            return entry.flow.tokens_per_s
        if entry not in self._expected:
            predictor = self._predictors.get(id(entry.problem))
            if predictor is None or predictor.problem is not entry.problem:
                predictor = self._predictors[id(entry.problem)] = Predictor(entry.problem, self._lengths)
            self._expected[entry] = float(predictor(entry.placement, entry.flow, None).decode_tokens_per_s)
        return self._expected[entry]

    def worth(self, entry: Entry) -> Worth:
        """The values of a placement, which are found once."""
        if not self.is_served or entry.flow.tokens_per_s <= 0:
            return Worth((entry.flow.tokens_per_s,) * (SEEDS if self.is_served else 1))
        return Worth(tuple(self.sample(entry, seed) for seed in range(SEEDS)))

    def sample(self, entry: Entry, seed: int) -> float:
        """The value on one request stream, which is found once. Machines that the flow does not use change nothing."""
        if not self.is_served or entry.flow.tokens_per_s <= 0:
            return entry.flow.tokens_per_s
        used = tuple(sorted((n, span) for n, span in entry.placement.items() if entry.flow.through(n) > 0))
        key = (self.effort, seed, entry.problem.cluster.network, used, tuple(sorted(entry.flow.edges.items())))
        if key not in self._known:
            began = time.perf_counter()
            self._known[key] = self._simulated(entry, seed)
            self.run_s = time.perf_counter() - began
        return self._known[key]

    def _simulated(self, entry: Entry, seed: int) -> float:
        from helix_kit.simulator import Window, score, steady_score  # numba takes a second to load.

        served = self.plan.served
        assert served is not None
        seed += self.plan.seed + 10_000  # streams that the search has not used
        judged = (entry.problem, entry.placement, entry.flow)
        if self.has_replicas:
            seconds = self.effort * MAX_SIMULATED_S
            # What is left of a chain that lost a machine serves nothing, and the engine's rules know only whole chains.
            whole = {n: span for n, span in entry.placement.items() if entry.flow.through(n) > 0}
            return score(
                (entry.problem, whole, entry.flow), warmup_s=WARMUP_SHARE * seconds,
                duration_s=(1 - WARMUP_SHARE) * seconds, seed=seed, lengths=self._pairs,
            ).decode_tokens_per_s  # fmt: skip
        if served.execution == "range":
            # Windows are counted in lives too: where caches are large these decide what a run costs.
            longest = Window(requests=MAX_REQUESTS)
            window = Window(
                requests=round(self.effort * MAX_REQUESTS),
                warmup_lives=max(MIN_WARMUP_LIVES, self.effort * longest.warmup_lives),
                lives=self.effort * longest.lives,
            )
            return steady_score(judged, self._pairs, window=window, seed=seed).decode_tokens_per_s
        seconds = self.effort * MAX_SIMULATED_S
        return score(
            judged,
            execution="layerwise",
            warmup_s=WARMUP_SHARE * seconds,
            duration_s=(1 - WARMUP_SHARE) * seconds,
            seed=seed,
            lengths=self._pairs,
        ).decode_tokens_per_s

    def spread_over(self, seconds: float, runs: int, fewest: int | None = None) -> bool:
        """Choose how long the runs are so that so many of them take about so many seconds.

        Returns whether they do. Where the shortest runs take longer, `fewest` of them are planned for, if that is
        given. Whoever makes the runs looks at the clock: even these may be too many.
        """
        if not self.is_served:
            return True
        self.effort = MIN_EFFORT
        own = self.own()
        # Both runs are kept: where runs are expensive, all of them are as short as these.
        self.sample(own, 0)
        first_s = self.run_s
        self.sample(own, 1)
        took_s = max(1e-6, self.run_s)
        self.compiled_s = max(0.0, first_s - took_s)
        if took_s * runs > seconds and fewest is not None:
            runs = fewest
        self.effort = float(np.clip(MIN_EFFORT * seconds / max(1, runs) / took_s, MIN_EFFORT, 1.0))
        self.run_s *= self.effort / MIN_EFFORT
        return runs != fewest

    def ends_by(self, deadline_s: float, runs: int = SEEDS) -> bool:
        """Whether so many runs more are likely to end by `deadline_s` (of `time.perf_counter`)."""
        return not self.is_served or time.perf_counter() + runs * self.run_s <= deadline_s


def problem_on(problem: Problem, cluster: Cluster) -> Problem:
    """The same model on another cluster. Kinds that are in both keep their profiles and speeds.

    Raises InfeasibleError when the cluster cannot hold the model.
    """
    if problem.engine is not None and check_engine(problem.engine, None):
        return Problem.of(cluster, problem.model, None, problem.lengths, problem.engine)
    known = {kind: problem.profiles[kind] for kind in cluster.kind_counts if kind in problem.profiles}
    fresh = Problem.of(cluster, problem.model, known, problem.lengths)
    kept = {kind: problem.throughput_by_kind[kind] for kind in known}
    speeds = {**fresh.throughput_by_kind, **kept}
    return replace(problem, cluster=cluster, profiles=fresh.profiles, throughput_by_kind=speeds)


def improved(judge: Judge, entry: Entry, deadline_s: float, seed: int = 0) -> Entry:
    """The best entry that local search finds until `deadline_s` (of `time.perf_counter`), by what is expected of it."""
    rng = np.random.default_rng(seed)
    value = judge.expected(entry)
    while time.perf_counter() < deadline_s:
        found = False
        for placement in neighbours(entry.problem, entry.placement, rng, NEIGHBOURS, MOVES):
            if time.perf_counter() >= deadline_s:
                break
            other = judge.entry(entry.problem, placement)
            expected = judge.expected(other)
            if expected > value * (1 + 1e-6):
                entry, value, found = other, expected, True
                break
        if not found and entry.flow.tokens_per_s <= 0:
            break
    return entry


def best_of(judge: Judge, entries: Sequence[Entry], count: int) -> list[Entry]:
    """The entries that are expected to be worth most, best first, each shape of flow once."""
    carrying = [entry for entry in entries if entry.flow.tokens_per_s > 0]
    return sorted(carrying, key=judge.expected, reverse=True)[:count]
