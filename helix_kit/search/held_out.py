"""How well the predictor ranks plans that its constants were not fitted on: rank correlation with the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from helix_kit.errors import InfeasibleError
from helix_kit.flow import Flow, Placement
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.search.candidate import Candidate, Trial
from helix_kit.search.evaluate import simulated
from helix_kit.search.moves import neighbours
from helix_kit.search.predictor import Predictor

DEPTHS = (1.0, 1.2, 1.5, 2.0, 2.6)
"""Caps on depth, as multiples of the fewest nodes that hold the model."""
STARTS = ("swarm", "petals", "proportional", "pattern")
WALK = 4
"""Moves from one plan of a random walk to the next."""


@dataclass(frozen=True)
class HeldOut:
    """Spearman's rank correlations with the simulated decode tokens/s."""

    plans: int
    """Number of plans that were ranked."""
    predictor: float
    """Correlation of the predicted tokens/s."""
    max_flow: float
    """Correlation of the maximum flow."""


class RandomPlan(NamedTuple):
    """A placement with its balanced maximum flow."""

    placement: Placement
    flow: Flow


def held_out(problem: Problem, *, count: int = 30, seed: int = 11, window_s: float = 600.0) -> HeldOut:
    """Rank correlations of predictor and maximum flow with the simulator, on random plans of many shapes.

    The window is ten minutes, as in the evaluation: deep plans fill slowly, so that a minute of service says little
    about their final throughput.
    """
    predictor, trial = Predictor(problem), Trial(execution="layerwise", duration_s=window_s)
    plans = list(random_plans(problem, count, seed))
    measured = [simulated(problem, Candidate(*p, 0.0), trial).decode_tokens_per_s for p in plans]
    predicted = [predictor(p.placement, p.flow).decode_tokens_per_s for p in plans]
    return HeldOut(
        len(plans),
        rank_correlation(predicted, measured),
        rank_correlation([p.flow.tokens_per_s for p in plans], measured),
    )


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of two lists; equal values share the mean of their ranks.

    Plans tie often: those that fill the same bottleneck have exactly the same maximum flow.

    >>> round(rank_correlation([1, 1, 1, 2], [4, 3, 2, 5]), 2)
    0.77
    """
    return float(spearmanr(a, b).statistic)


def random_plans(problem: Problem, count: int, seed: int) -> Iterator[RandomPlan]:
    """Plans of capped depth, plans of baselines, and random walks from each of them, four moves a step.

    The plans that the predictor was fitted on were drawn in another way, and on single24 alone.
    """
    rng = np.random.default_rng(seed)
    starts = list(_starts(problem, seed))
    yielded = 0
    for at in range(50 * count):
        placement = starts[at % len(starts)]
        for _ in range(WALK if at >= len(starts) else 0):
            placement = next(neighbours(problem, placement, rng, 1), placement)
        flow = problem.max_flow(placement, split="balanced")
        if flow.tokens_per_s > 0:
            yielded += 1
            yield RandomPlan(placement, flow)
        if yielded >= count:
            return


def _starts(problem: Problem, seed: int) -> Iterator[Placement]:
    """Plans of capped depth and of other methods."""
    fewest = problem.fewest_nodes
    for factor in DEPTHS:
        try:
            plan = plan_problem(problem, max_stages=round(fewest * factor), time_limit_s=5.0, seed=seed, prove=False)
        except InfeasibleError:
            continue
        yield plan.placement
    for method in STARTS:
        try:
            plan = plan_problem(problem, method=method, time_limit_s=5.0, seed=seed)
        except InfeasibleError:
            continue
        if problem.holds(plan.placement):
            yield plan.placement
