"""How well the predictor orders plans that it was not fitted on: rank correlation with the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Flow
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.search.evaluate import Setting, score_one
from helix_kit.search.moves import Layout, neighbours
from helix_kit.search.predictor import Predictor

DEPTHS = (1.0, 1.2, 1.5, 2.0, 2.6)
"""Caps on stages, as multiples of the fewest that hold the model."""
STARTS = ("swarm", "petals", "proportional", "pattern")
WALK = 4


@dataclass(frozen=True)
class HeldOut:
    """Spearman's rank correlation with the simulated decode tokens/s, over so many plans."""

    plans: int
    predictor: float
    max_flow: float


def held_out(problem: Problem, *, count: int = 30, seed: int = 11, window_s: float = 600.0) -> HeldOut:
    """Predictor and maximum flow against the simulator, on random plans of many shapes (see `random_plans`).

    The window is the evaluation's: deep plans fill slowly, and a minute of service says little of what they come to.
    """
    predictor, setting = Predictor(problem), Setting(duration=window_s)
    plans = list(random_plans(problem, count, seed))
    measured = [score_one(problem, p, setting)["decode_tokens_per_s"] for p in plans]
    predicted = [predictor(*p).decode_tokens_per_s for p in plans]
    return HeldOut(
        len(plans),
        rank_correlation(predicted, measured),
        rank_correlation([flow.tokens_per_s for _, flow in plans], measured),
    )


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists; equal values share the mean of their ranks.

    Plans tie often: those that fill the same bottleneck have exactly the same maximum flow.

    >>> round(rank_correlation([1, 1, 1, 2], [4, 3, 2, 5]), 2)
    0.77
    """
    return float(spearmanr(a, b).statistic)


def random_plans(problem: Problem, count: int, seed: int) -> Iterator[tuple[Layout, Flow]]:
    """Plans of capped depth, baselines, and random walks of up to eight moves from each, with the balanced flow.

    The predictor was fitted on plans drawn otherwise, on single24 alone.
    """
    rng = np.random.default_rng(seed)
    starts = list(_starts(problem, seed))
    made = 0
    for at in range(50 * count):
        placement = starts[at % len(starts)]
        for _ in range(WALK if at >= len(starts) else 0):
            placement = next(neighbours(problem, placement, rng, 1), placement)
        flow = problem.max_flow(placement, split="balanced")
        if flow.tokens_per_s > 0:
            made += 1
            yield placement, flow
        if made >= count:
            return


def _starts(problem: Problem, seed: int) -> Iterator[Layout]:
    sizes = sorted((problem.max_layers(n.name) for n in problem.cluster.nodes), reverse=True)
    fewest = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= problem.num_layers)
    for factor in DEPTHS:
        try:
            yield plan_problem(
                problem, max_stages=round(fewest * factor), time_limit_s=5.0, seed=seed, prove=False
            ).placement
        except InfeasibleError:
            continue
    for method in STARTS:
        try:
            made = plan_problem(problem, method=method, time_limit_s=5.0, seed=seed)
        except InfeasibleError:
            continue
        if problem.holds(made.placement):
            yield made.placement
