"""Plans for what they serve: objective ``served``.

Maximum flow is a surrogate: deep pipelines pay in round trips, key-value space and waiting that it does not see. Here
a pool of candidates of many shapes, each with its balanced maximum flow, is ranked by the predictor, the best are
simulated, and local search goes on from them with the simulator in the loop until the time is up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.flow import Flow
from helix_kit.placement import bounds
from helix_kit.placement.groups import groups_of
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search import pool
from helix_kit.search.moves import Layout, key_of, neighbours
from helix_kit.search.predictor import Predictor
from helix_kit.search.scorer import Scorer, Setting

POOL_SHARE, SCREEN_SHARE, FINAL_SHARE = 0.25, 0.2, 0.2
"""Shares of the time limit: making candidates, first simulations, comparing the best over longer runs."""
SCREENED = 24
ELITES = 4
NEIGHBOURS = 30
FINALISTS = 4
FINAL_DURATION_S = 300.0


@dataclass
class Candidate:
    """A placement with its balanced flow, what the predictor says and what the simulator measured."""

    placement: Layout
    flow: Flow
    predicted: float
    served: dict[str, float] | None = None
    value: float = 0.0
    """What is maximised, from `served`."""

    @property
    def depth(self) -> int:
        """Most nodes that a request passes."""
        deepest: dict[str, int] = {}
        for name in sorted(self.placement, key=lambda n: self.placement[n][1]):
            feeding = [deepest.get(a, 0) for (a, b) in self.flow.edges if b == name]
            deepest[name] = 1 + max(feeding, default=0)
        return max(deepest.values(), default=0)


def worth(served: Mapping[str, float], setting: Setting, latency_limit_s: float | None) -> float:
    """What the search maximises: decode tokens/s, less what a decode latency above the limit costs.

    Online, where throughput is what is offered, a plan is better for answering sooner.
    """
    value, latency = served["decode_tokens_per_s"], served["decode_latency_s"]
    if latency_limit_s is not None and latency > latency_limit_s:
        value *= (latency_limit_s / latency) ** 2
    return value / (1 + latency) if setting.mode == "online" else value


class Search:
    """One search: the archive of what was simulated, and the steps that fill it."""

    def __init__(
        self, problem: Problem, watch: Watch, scorer: Scorer, setting: Setting, options: Mapping[str, Any]
    ) -> None:
        self.problem, self.watch, self.scorer, self.setting = problem, watch, scorer, setting
        self.latency_limit_s: float | None = options.get("latency_limit_s")
        self.most_simulations: float = options.get("max_simulations") or np.inf
        self.partial_inference: bool = options.get("partial_inference", True)
        self.split = options.get("flow_split", "balanced")
        self.predictor = Predictor(problem)
        self.rng = np.random.default_rng(options.get("seed", 0))
        self.archive: dict[Any, Candidate] = {}
        self.simulations = 0

    def candidate(self, placement: Layout) -> Candidate | None:
        """The placement with flow and prediction; None when it carries nothing."""
        flow = self.problem.max_flow(placement, partial_inference=self.partial_inference, split=self.split)
        if flow.tokens_per_s <= 0:
            return None
        return Candidate(placement, flow, self.predictor(placement, flow).decode_tokens_per_s)

    def simulate(self, chosen: list[Candidate]) -> None:
        """Simulate candidates, and keep them in the archive."""
        chosen = chosen[: int(min(len(chosen), self.most_simulations - self.simulations))]
        results = self.scorer([((c.placement, c.flow), self.setting) for c in chosen])
        self.simulations += len(chosen)
        for c, served in zip(chosen, results):
            c.served, c.value = served, worth(served, self.setting, self.latency_limit_s)
            self.archive[key_of(c.placement)] = c
        best = self.best()
        if best and best[0].served:
            # The clock's value is flow; what is served is said in words.
            self.watch.report(
                message=f"{best[0].served['decode_tokens_per_s']:.1f} tokens/s served ({self.simulations} simulated)"
            )

    def best(self) -> list[Candidate]:
        """The archive, best first."""
        return sorted(self.archive.values(), key=lambda c: (-c.value, key_of(c.placement)))

    def over(self, until: float) -> bool:
        """Whether this part has used its time, or all simulations are spent."""
        return self.watch.seconds >= until or self.watch.stopped() or self.simulations >= self.most_simulations

    def screen(self, until: float, solver: str, seed: int) -> None:
        """Make the pool, and simulate those that the predictor likes, and some of every depth."""
        inner = Watch(self.watch.time_limit * POOL_SHARE, stop=self.watch.stopped)
        found: dict[Any, Candidate] = {}
        for placement in pool.candidates(self.problem, self.predictor, inner, solver, seed):
            c = self.candidate(placement) if key_of(placement) not in found else None
            if c is not None:
                found[key_of(placement)] = c
                self.watch.report(value=c.flow.tokens_per_s)
        if not found:
            raise InfeasibleError(
                f"no placement of {self.problem.model.name} on cluster {self.problem.cluster.name} carries any flow"
            )
        ranked = sorted(found.values(), key=lambda c: (-c.predicted, key_of(c.placement)))
        # The predictor ranks well within a shape, less so between shapes: the best of each depth goes first.
        first = {c.depth: c for c in reversed(ranked)}
        order = sorted(first.values(), key=lambda c: (-c.predicted, key_of(c.placement)))
        taken = {id(c) for c in order}
        order += [c for c in ranked if id(c) not in taken]
        for start in range(0, min(SCREENED, len(order)), self.scorer.jobs):
            if start and self.over(until):
                break
            self.simulate(order[start : start + self.scorer.jobs])

    def improve(self, until: float) -> None:
        """Local search from the best few, the simulator deciding."""
        while not self.over(until):
            elites = self.best()[:ELITES]
            weights = np.array([1 / (rank + 1) for rank in range(len(elites))])
            parent = elites[int(self.rng.choice(len(elites), p=weights / weights.sum()))]
            fresh = []
            for placement in neighbours(self.problem, parent.placement, self.rng, NEIGHBOURS):
                if key_of(placement) in self.archive:
                    continue
                c = self.candidate(placement)
                if c is not None:
                    fresh.append(c)
            fresh.sort(key=lambda c: (-c.predicted, key_of(c.placement)))
            if not fresh:
                continue
            # Mostly what the predictor likes best, and now and then something it does not: it has its own errors.
            picked = fresh[: self.scorer.jobs]
            if len(fresh) > self.scorer.jobs and self.rng.random() < 0.3:
                picked[-1] = fresh[int(self.rng.integers(self.scorer.jobs, len(fresh)))]
            self.simulate(picked)

    def decide(self) -> tuple[Candidate, Setting]:
        """The best of the archive over longer runs, other lengths included."""
        finalists = self.best()[:FINALISTS]
        longer = replace(
            self.setting, duration=max(FINAL_DURATION_S, self.setting.duration), seed=self.setting.seed + 1
        )
        if self.watch.stopped() or len(finalists) < 2 or self.simulations >= self.most_simulations:
            return finalists[0], self.setting
        results = self.scorer([((c.placement, c.flow), longer) for c in finalists])
        for c, served in zip(finalists, results):
            c.served, c.value = served, worth(served, longer, self.latency_limit_s)
        return max(finalists, key=lambda c: (c.value, key_of(c.placement))), longer


def plan_served(
    problem: Problem,
    *,
    solver: str,
    seed: int,
    watch: Watch,
    flow_split: str = "balanced",
    partial_inference: bool = True,
    mode: str = "offline",
    execution: str = "layerwise",
    rate: float | None = None,
    latency_limit_s: float | None = None,
    window_s: float = 120.0,
    max_simulations: int | None = None,
    jobs: int | None = None,
) -> Plan:
    """The plan that serves most in the simulator, within the watch's time limit.

    Parameters
    ----------
    mode, rate
        ``offline`` (a backlog; decode tokens/s count) or ``online`` at `rate` requests/s (latency counts).
    execution
        Rules of the simulated nodes: ``layerwise`` as published, ``range`` as our runtime works.
    latency_limit_s
        Mean decode latency above which a plan is marked down.
    window_s
        Seconds of simulated service that candidates are compared over.
    max_simulations
        Ends the search after so many, for results that do not depend on the machine's speed.
    jobs
        Worker processes; None: two, or as many as there are cores.
    """
    if mode not in ("offline", "online"):
        raise InputError("expected offline or online", field="mode", value=mode)
    if mode == "online" and not (rate and rate > 0):
        raise InputError("online mode needs the requests/s it is planned for", field="rate", value=rate)
    setting = Setting(mode, execution, rate, duration=window_s, seed=seed)
    options = {
        "latency_limit_s": latency_limit_s, "max_simulations": max_simulations, "seed": seed,
        "flow_split": flow_split, "partial_inference": partial_inference,
    }  # fmt: skip
    limit = watch.time_limit
    with Scorer(problem, jobs or max(1, min(2, os.cpu_count() or 1))) as scorer:
        search = Search(problem, watch, scorer, setting, options)
        search.screen(limit * (POOL_SHARE + SCREEN_SHARE), solver, seed)
        search.improve(limit * (1 - FINAL_SHARE))
        chosen, used = search.decide()
    groups = groups_of(problem)
    proven = {"compute": problem.compute_bound, "B1": bounds.b1(groups, problem.num_layers)}
    proven["B2"] = bounds.b2(groups, problem.num_layers, low=chosen.flow.tokens_per_s, high=proven["B1"])
    return Plan.from_placement(
        problem,
        chosen.placement,
        method="search",
        objective="served",
        solver=solver,
        flow=chosen.flow,
        bound_tokens_per_s=max(min(proven.values()), chosen.flow.tokens_per_s),
        bounds=proven,
        seconds=watch.seconds,
        seed=seed,
        flow_split=flow_split,
        partial_inference=partial_inference,
        progress=tuple(watch.history),
        served=_report(search, chosen, used),
        notes=("bound and gap are of the flow; what is served has no proven bound",),
    )


def _report(search: Search, chosen: Candidate, setting: Setting) -> dict[str, Any]:
    """The plan's `served`: what the simulator measured, under what, and the front of what else was found."""
    return {
        **(chosen.served or {}),
        "mode": setting.mode,
        "execution": setting.execution,
        "duration_s": setting.duration,
        "warmup_s": setting.warmup,
        "seed": setting.seed,
        "simulations": search.simulations,
        "stages": chosen.depth,
        "pareto": front(list(search.archive.values())),
    }


def front(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Candidates that no other beats in throughput, both latencies and depth at once, most throughput first."""
    rows: list[dict[str, Any]] = [
        {
            **{k: c.served[k] for k in ("decode_tokens_per_s", "prompt_latency_s", "decode_latency_s")},
            "stages": c.depth,
            "flow_tokens_per_s": c.flow.tokens_per_s,
            "placement": {n: list(span) for n, span in c.placement.items()},
        }
        for c in candidates
        if c.served
    ]

    def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
        at_least = (
            a["decode_tokens_per_s"] >= b["decode_tokens_per_s"]
            and a["prompt_latency_s"] <= b["prompt_latency_s"]
            and a["decode_latency_s"] <= b["decode_latency_s"]
            and a["stages"] <= b["stages"]
        )
        return at_least and any(
            a[k] != b[k] for k in ("decode_tokens_per_s", "prompt_latency_s", "decode_latency_s", "stages")
        )

    kept: dict[tuple[float, ...], dict[str, Any]] = {}
    for row in rows:
        if not any(beats(other, row) for other in rows):
            # Plans that differ only in which of two equal machines stands where serve the same: one will do.
            kept.setdefault(tuple(v for v in row.values() if not isinstance(v, dict)), row)
    return sorted(kept.values(), key=lambda r: -r["decode_tokens_per_s"])[:20]
