"""What simulations teach about the predictor while a search goes on.

The predictor's constants were fitted once, on one cluster and by the published rules. On another cluster, or by other
rules, it may rank plans of some shapes too high. A search knows by how much it was wrong for each plan that it has
simulated. From these, log(value / prediction) is fitted as a linear function of a few features of a plan, and further
plans are ranked by the prediction times the exponential of that. The fit is a ridge regression, so a few simulations
correct little. Good plans weigh more, since only they are searched around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from helix_kit.search.candidate import Candidate
from helix_kit.search.predictor import Predictor

Correction = tuple[float, ...]
"""The constant and a weight for each feature; empty: predictions stay as they are."""
MIN_SIMULATED = 12
"""Simulated plans from which a correction is fitted."""
RIDGE = 2.0
"""How many plans at the mean distance of a feature are needed to halve what the fit leaves out."""
GOODNESS_POWER = 4.0
"""A plan of half the best value weighs 1/16."""
MOST = 0.7
"""A single plan counts with a correction by a factor of 2 at most, up or down."""


def fitted(predictor: Predictor, simulated: Sequence[Candidate]) -> Correction:
    """The correction that follows from plans which were simulated for the whole window.

    Parameters
    ----------
    predictor
        Gives the features of the plans.
    simulated
        Candidates with a value; those without a prediction or a value are left out.

    Returns
    -------
    Correction
        Empty where there are too few plans.

    Examples
    --------
    >>> fitted(predictor, archive)                                  # doctest: +SKIP
    (0.31, -0.2, 0.05, 0.0, -0.11, 0.02)
    """
    counted = [c for c in simulated if c.value > 0 and c.predicted_value > 0]
    if len(counted) < MIN_SIMULATED:
        return ()
    features = np.array([predictor.features(c.placement, c.flow) for c in counted])
    wrong = np.array([math.log(c.value / c.predicted_value) for c in counted])
    best = max(c.value for c in counted)
    weight = np.array([(c.value / best) ** GOODNESS_POWER for c in counted])
    middle = np.average(features, axis=0, weights=weight)
    usual = float(np.average(wrong, weights=weight))
    spread = np.sqrt(np.average((features - middle) ** 2, axis=0, weights=weight)) + 1e-9
    scaled = (features - middle) / spread
    left = np.clip(wrong - usual, -MOST, MOST)
    square = (scaled * weight[:, None]).T @ scaled + RIDGE * np.eye(scaled.shape[1])
    weights = np.linalg.solve(square, (scaled * weight[:, None]).T @ left) / spread
    return (usual - float(weights @ middle), *map(float, weights))


def corrected(predictor: Predictor, candidates: Sequence[Candidate], correction: Correction) -> list[float]:
    """The predicted value of each candidate, corrected."""
    if not correction:
        return [c.predicted_value for c in candidates]
    constant, *weights = correction
    return [
        c.predicted_value * math.exp(constant + float(np.dot(weights, predictor.features(c.placement, c.flow))))
        for c in candidates
    ]
