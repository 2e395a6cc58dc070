"""Plans for what they serve: objective ``served``.

Maximum flow is a surrogate: deep pipelines pay in round trips, key-value space and waiting that it does not see. Here
a pool of candidates of many shapes, each with its balanced maximum flow, is ranked by the predictor, the best are
simulated, and local search goes on from them with the simulator in the loop until the time is up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement.pattern.pins import check_pins
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch
from helix_kit.search import front, pool
from helix_kit.search.ease import plain, sparing_slow
from helix_kit.search.evaluate import Candidate, Rules, Setting, by_prediction, worth
from helix_kit.search.moves import key_of
from helix_kit.search.scorer import Scorer, Step
from helix_kit.simulator.scoring import CHECKS

FLOW_SHARE, POOL_SHARE, SCREEN_SHARE, FINAL_SHARE = 0.1, 0.15, 0.25, 0.2
"""Shares of the time limit: the proven maximum flow, making candidates, first simulations, the last comparison."""
WINDOW_S, LEAST_WINDOW_S, ENOUGH_TOKENS_PER_S = 600.0, 200.0, 1000.0
"""Requests live for minutes: in the first, prompts fill the caches, and the plans that then serve most are others than
those that serve most over ten (hetero42: 353 and 964 tokens/s of one, 759 and 684 of another)."""
POLISHED, POLISH_ROUNDS, POLISH_SHARE = 8, 120, 0.25
"""Placements that are improved by the predictor alone where the split is any, rounds of thirty neighbours each, and
the share of the time limit that it takes at most."""
SCREENED = 24
WORTH_A_RUN = 0.6
"""Candidates that are predicted less than this share of the best are not simulated first."""
BEST_OF_FAMILY = 2
RACE_MARGINS = (0.7, 0.85)
"""Shares of what the least of the best few served then, at a quarter and half of the window."""
ELITES, SAME_DEPTH = 4, 2
STEPS, PICKS = 2, 2
"""Steps of local search in a round, and simulations a step: a number of their own, so that `jobs` changes nothing."""
IDLE_ROUNDS = 25
"""Rounds in a row without a new placement after which there is nothing left to find."""
FINALISTS = 10
FINAL_SEEDS = 2
"""Request streams that the last comparison is over, none of them the search's."""


class Search:
    """One search: the archive of what was simulated, and the steps that fill it."""

    def __init__(
        self,
        problem: Problem,
        watch: Watch,
        scorer: Scorer,
        setting: Setting,
        *,
        limits: Mapping[str, float],
        max_simulations: int | None,
        seed: int,
        window_s: float | None = None,
    ) -> None:
        self.window_s = window_s
        self.problem, self.watch, self.scorer, self.setting = problem, watch, scorer, setting
        self.limits = limits
        self.most_simulations: float = max_simulations or np.inf
        self.evaluator = scorer.here
        self.rng = np.random.default_rng(seed)
        self.archive: dict[str, Candidate] = {}
        self.simulations = 0
        self.history: list[tuple[float, float]] = []

    def keep(self, simulated: Sequence[Candidate]) -> None:
        """Put simulated candidates into the archive, and report the best."""
        self.simulations += len(simulated)
        for c in simulated:
            c.value = worth(c.served or {}, self.limits, online=self.setting.mode == "online")
            self.archive[self.evaluator.identity(c.placement, c.ease)] = c
        if not self.archive:
            return
        top = (self.best()[0].served or {})["decode_tokens_per_s"]
        if not self.history or self.history[-1][1] != top:
            self.history.append((self.watch.seconds, top))
        # The clock's value is flow; what is served is said in words.
        self.watch.report(message=f"{top:.1f} tokens/s served ({self.simulations} simulated)")

    def best(self) -> list[Candidate]:
        """The archive, best first.

        Runs that ended early are only known: means of a short run do not compare with those of a whole one. They stand
        here only where there is nothing else.
        """
        whole = [c for c in self.archive.values() if (c.served or {})["window_s"] >= self.setting.duration]
        return sorted(
            whole or self.archive.values(), key=lambda c: (-c.value, key_of(c.placement), sorted(c.ease.items()))
        )

    def elites(self) -> list[Candidate]:
        """The best few, each of a shape of its own and few of a depth: parents of what is tried next."""
        found: dict[str, Candidate] = {}
        depths: Counter[int] = Counter()
        for c in self.best():
            shape, depth = repr(self.evaluator.shape(c.placement)), c.depth
            if shape not in found and depths[depth] < SAME_DEPTH:
                found[shape] = c
                depths[depth] += 1
            if len(found) == ELITES:
                break
        return list(found.values())

    def racing(self) -> Setting:
        """The setting, with what the best served before a quarter and half of the window: who is far behind ends there.

        All see the same requests, so the same seconds are compared. What latency limits take off counts here too.
        """
        best = [c for c in self.best()[:ELITES] if c.value > 0]
        if len(best) < ELITES or self.setting.mode == "online":
            return self.setting
        rows = [(c.served or {}, c.value) for c in best]
        least = [
            margin * min(s[name] * value / s["decode_tokens_per_s"] for s, value in rows)
            for name, margin in zip(CHECKS, RACE_MARGINS, strict=True)
        ]
        return replace(self.setting, at_least=(least[0], least[1]))

    def stopped(self) -> bool:
        """Whether to stop now: not before there is something to keep."""
        return bool(self.archive) and self.watch.stopped()

    def over(self, until: float) -> bool:
        """Whether this part has used its time, or all simulations are spent."""
        return self.watch.seconds >= until or self.watch.stopped() or self.simulations >= self.most_simulations

    def screen(self, placements: Sequence[pool.Layout], until: float, solver: str) -> None:
        """Make the pool, and simulate those that the predictor likes, and some of every depth."""
        inner = Watch(self.watch.time_limit_s * POOL_SHARE, stop=self.watch.stopped)
        found: dict[str, Candidate] = {}
        families: dict[str, list[Candidate]] = {}
        rules, predictor = self.evaluator.rules, self.evaluator.predictor
        made_for = without(self.problem, rules.pins)
        sparing = sparing_slow(predictor.decode_s, predictor.prefill_s) if self.evaluator.may_ease else {}
        for family, placement in pool.candidates(
            made_for, self.evaluator, placements, inner, solver, self.setting.seed
        ):
            pinned = {**placement, **rules.pins}
            spare = plain(self.problem, pinned, sparing) if family in pool.SIDE_BY_SIDE else {}
            for ease in ({}, spare) if spare else ({},):
                name = self.evaluator.identity(pinned, ease)
                made = None if name in found else self.evaluator.candidate(pinned, ease)
                if made is not None:
                    found[name] = made
                    families.setdefault(f"{family}, eased" if ease else family, []).append(made)
        if not found:
            raise InfeasibleError(
                f"no placement of {self.problem.model.name} on cluster {self.problem.cluster.name} "
                "carries any flow under these pins and this depth cap",
                fix="drop a pin, or allow more stages",
            )
        ranked = by_prediction(list(found.values()))
        # The predictor ranks well within a shape, less so between shapes: the best of each family and depth go first.
        order = by_prediction([c for family in families.values() for c in by_prediction(family)[:BEST_OF_FAMILY]])
        order += by_prediction(list({c.depth: c for c in reversed(ranked)}.values()))
        order = [c for c in order if c.predicted >= ranked[0].predicted * WORTH_A_RUN]
        if rules.flow_split == "any":
            # With a count of simulations no clock decides.
            share = (POLISH_SHARE if self.most_simulations == np.inf else 1.0) * self.watch.time_limit_s
            order = [*self.polished(_once(order), self.watch.seconds + share), *order]
            until += share
        if self.window_s is None:
            likely = max(c.predicted for c in order)
            shorter = max(LEAST_WINDOW_S, WINDOW_S * min(1.0, ENOUGH_TOKENS_PER_S / likely))
            self.setting = replace(self.setting, duration=float(round(shorter)))
        order = _once([*order, *ranked])
        for start in range(0, min(SCREENED, len(order)), STEPS):
            if start and self.over(until):
                break
            room = int(min(STEPS, self.most_simulations - self.simulations))
            self.keep(self.scorer.simulate(order[start : start + room], self.racing(), self.stopped))
        if not self.archive:  # stopped before: there are no workers any more, and something is to be kept
            self.keep([self.evaluator.simulate(order[0], self.setting)])

    def polished(self, starts: Sequence[Candidate], until: float) -> list[Candidate]:
        """What the predictor alone makes of the first few of `starts`, best predicted first."""
        made: list[Candidate] = []
        few = [c.placement for c in starts[:POLISHED]]
        for at in range(0, len(few), STEPS):
            if not self.over(until):
                made += self.scorer.polish(
                    few[at : at + STEPS], seed=self.setting.seed + at, rounds=POLISH_ROUNDS,
                    seconds=until - self.watch.seconds, stop=self.watch.stopped,
                )  # fmt: skip
        return by_prediction(made)

    def improve(self, until: float) -> None:
        """Local search from the best few, the simulator deciding."""
        idle = 0
        while not self.over(until) and idle < IDLE_ROUNDS:
            elites = self.elites()
            weights = np.array([1 / (rank + 1) for rank in range(len(elites))])
            parents = self.rng.choice(len(elites), STEPS, p=weights / weights.sum())
            seeds = self.rng.integers(2**31, size=STEPS)
            room = self.most_simulations - self.simulations
            steps = [
                Step(elites[p].placement, int(seed), int(min(PICKS, room - i * PICKS)), elites[p].ease)
                for i, (p, seed) in enumerate(zip(parents, seeds, strict=True))
                if room > i * PICKS
            ]
            made = self.scorer.explore(steps, self.racing(), self.archive.keys(), self.stopped)
            idle = 0 if made else idle + 1
            if made:
                self.keep(made)

    def decide(self) -> tuple[list[Candidate], list[int]]:
        """The best of the archive and of its front, all measured alike, and the seeds of the streams that it was over.

        This comes on top of `max_simulations`, which counts the search's own.
        """
        ranked = self.best()
        few = front.of(ranked)
        finalists = _once([*ranked[: ELITES // 2], *self.elites(), *few])[:FINALISTS]
        others = [replace(self.setting, seed=self.setting.seed + 1 + i) for i in range(FINAL_SEEDS)]
        if self.watch.stopped() or len(finalists) < 2:
            return few, [self.setting.seed]
        measured: list[Candidate] = []
        for start in range(0, len(finalists), STEPS):
            if start and self.watch.is_over():
                break
            some = finalists[start : start + STEPS]
            runs = [self.scorer.simulate(some, other, self.stopped) for other in others]
            if self.stopped():
                break
            for c, *same in zip(some, *runs, strict=True):
                served = [made.served or {} for made in same]
                mean = {name: float(np.mean([s[name] for s in served])) for name in served[0]}
                value = worth(mean, self.limits, online=self.setting.mode == "online")
                measured.append(replace(c, served=mean, value=value))
        return (measured, [other.seed for other in others]) if measured else (few, [self.setting.seed])


def _once(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each candidate where it first stands: one that two lists share is the same object."""
    return list({id(c): c for c in candidates}.values())


def without(problem: Problem, pins: Mapping[str, tuple[int, int]]) -> Problem:
    """The problem without its pinned nodes, so that plans do not count on them elsewhere, if the others can hold it."""
    free = [n for n in problem.cluster.nodes if n.name not in pins]
    if not pins or sum(problem.max_layers(n.name) for n in free) < problem.num_layers:
        return problem
    network = problem.cluster.network
    links = tuple(link for link in network.links if not set(pins) & set(link.ends))
    cluster = problem.cluster.model_copy(
        update={"nodes": tuple(free), "network": network.model_copy(update={"links": links})}
    )
    return Problem(cluster, problem.model, problem.profiles, problem.throughput_by_kind)


def plan_served(
    problem: Problem,
    *,
    solver: str,
    seed: int,
    watch: Watch,
    flow_split: Literal["balanced", "any"] = "balanced",
    partial_inference: bool = True,
    pins: Mapping[str, tuple[int, int]] | None = None,
    max_stages: int | None = None,
    mode: str = "offline",
    execution: str = "layerwise",
    rate: float | None = None,
    latency_limit_s: float | None = None,
    prompt_latency_limit_s: float | None = None,
    pareto_pick: str = "throughput",
    window_s: float | None = None,
    max_simulations: int | None = None,
    jobs: int | None = None,
) -> Plan:
    """The plan that serves most in the simulator, within the watch's time limit.

    Parameters
    ----------
    pins, max_stages
        Node -> layer range that it must hold; most nodes that a request may pass.
    mode, rate
        ``offline`` (a backlog; decode tokens/s count) or ``online`` at `rate` requests/s (latency counts).
    execution
        Rules of the simulated nodes: ``layerwise`` as published, ``range`` as our runtime works.
    latency_limit_s, prompt_latency_limit_s
        Mean decode and prompt latency above which a plan is marked down.
    pareto_pick
        Which plan of the Pareto front comes out: ``throughput`` (the default), ``prompt``, ``decode`` or
        ``balanced``; see `helix_kit.search.front.pick`.
    window_s
        Seconds of simulated service that candidates are compared over. None: 600, and fewer (down to 200) where so
        many tokens are served that as many come back.
    max_simulations
        Ends the search after so many, for results that do not depend on the machine's speed.
    jobs
        Worker processes; None: two, or as many as there are cores.

    Raises InputError for a wrong option, InfeasibleError where no plan keeps to the pins and the depth cap.
    """
    if mode not in ("offline", "online"):
        raise InputError("expected offline or online", field="mode", value=mode)
    if execution not in ("layerwise", "range"):
        raise InputError("expected layerwise or range", field="execution", value=execution)
    if mode == "online" and not (rate and rate > 0):
        raise InputError("online mode needs the requests/s it is planned for", field="rate", value=rate)
    if mode == "offline" and rate is not None:
        raise InputError("expected only with mode online", field="rate", value=rate)
    seconds = {
        "latency_limit_s": latency_limit_s, "prompt_latency_limit_s": prompt_latency_limit_s, "window_s": window_s,
    }  # fmt: skip
    for name, given_s in seconds.items():
        if given_s is not None and not given_s > 0:
            raise InputError("expected a number of seconds above 0", field=name, value=given_s)
    for name, count in {"max_simulations": max_simulations, "jobs": jobs}.items():
        if count is not None and count < 1:
            raise InputError("expected at least 1", field=name, value=count)
    if pareto_pick not in front.PICKS:
        raise InputError(f"expected one of {', '.join(front.PICKS)}", field="pareto_pick", value=pareto_pick)
    given = {"decode_latency_s": latency_limit_s, "prompt_latency_s": prompt_latency_limit_s}
    limits = {name: limit for name, limit in given.items() if limit is not None}
    fixed = check_pins(problem, pins or {})
    setting = Setting(mode, execution, rate, duration=window_s or WINDOW_S, seed=seed)
    rules = Rules(flow_split, partial_inference, fixed, max_stages, limits, rate if mode == "online" else None)
    limit = watch.time_limit_s
    # The proven maximum flow first: it is known in seconds, and its plan belongs in the pool.
    most = plan_problem(
        problem, solver=solver, seed=seed, time_limit_s=max(1.0, limit * FLOW_SHARE), stop=watch.stopped,
        partial_inference=partial_inference, pins=fixed or None, max_stages=max_stages,
    )  # fmt: skip
    watch.report(value=most.flow_tokens_per_s, bound=most.bound_tokens_per_s, message="the maximum flow")
    with Scorer(problem, jobs or max(1, min(2, os.cpu_count() or 1)), rules) as scorer:
        search = Search(
            problem,
            watch,
            scorer,
            setting,
            limits=limits,
            max_simulations=max_simulations,
            seed=seed,
            window_s=window_s,
        )
        search.screen([most.placement], limit * (FLOW_SHARE + POOL_SHARE + SCREEN_SHARE), solver)
        search.improve(limit * (1 - FINAL_SHARE))
        measured, seeds = search.decide()
    rows = front.table(measured)
    best = max(measured, key=lambda c: (c.value, key_of(c.placement)))
    chosen = best if pareto_pick == "throughput" else front.pick(measured, pareto_pick)
    notes = ["bound and gap are of the flow; what is served has no proven bound"]
    if chosen.ease:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in chosen.ease.items())
        notes.append(f"less than the maximum flow, so that slow kinds are spared: of what they could carry, {shares}")
    return Plan.from_placement(
        problem,
        chosen.placement,
        flow=chosen.flow,
        method="search",
        objective="served",
        solver=solver,
        bound_tokens_per_s=max(most.bound_tokens_per_s, chosen.flow.tokens_per_s),
        bounds=most.bounds,
        seconds=watch.seconds,
        seed=seed,
        flow_split=flow_split,
        partial_inference=partial_inference,
        progress=tuple(watch.history),
        served={
            **(chosen.served or {}),
            "mode": search.setting.mode,
            "execution": search.setting.execution,
            "duration_s": search.setting.duration,
            "warmup_s": search.setting.warmup,
            "seeds": seeds,
            "simulations": search.simulations,
            "compared": len(measured) if seeds != [seed] else 0,
            "stages": chosen.depth,
            "max_flow_tokens_per_s": most.flow_tokens_per_s,
            "max_flow_bound_tokens_per_s": most.bound_tokens_per_s,
            "max_flow_gap": most.gap,
            "max_flow_seconds": most.seconds,
            "progress": search.history,
            "pareto": rows,
            "ease": chosen.ease,
        },
        notes=tuple(notes),
    )
