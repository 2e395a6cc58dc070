"""The constants of an engine, found from the training runs: a fit with priors.

A fit minimises the sum of squares of two kinds of residuals. The first is the error of each stage in each of
`TOLERANCES`, as a logarithm over its tolerance; large ones count less (the pseudo-Huber loss), because one stage near
saturation would outweigh all others. The second is the distance of each constant from its prior, as a logarithm over
the prior's spread. What the runs do not decide stays at the prior. All fits start at the priors. Each round takes the
derivatives of all predictions and makes the best step within a radius if predictions were linear; the radius shrinks
where that promises too much.
Derivatives come from whole runs: in shorter ones the prompts that the prefix cache has not met yet weigh more.
Nothing is random but the arrivals, which a seed decides, so that the same runs give the same constants.

Only training runs are read: nothing here opens what was measured in evaluation runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from helix_kit.errors import InputError
from helix_kit.experiments.exam.predictions import Figures
from helix_kit.experiments.exam.priors import FOLLOWERS, PRIORS, Prior
from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.experiments.exam.training import TOLERANCES, Training
from helix_kit.profiles.engines import Constants, EngineRecord

STEP = 0.08
"""Relative change of a constant for a derivative. Less changes which requests meet in a step as much as what a step
takes, so that derivatives are noise."""
MAX_STEP = 0.7
"""Largest change of a constant's logarithm between two derivatives: a factor of two."""
MAX_ROUNDS = 8
"""Derivatives of a fit."""
TRIES = 4
"""Steps that are tried with one derivative, each a third as long as the one before."""
ENOUGH = 2e-3
"""A fit ends once a step lowers its cost by less than this share."""
DIGITS = 4
"""Significant digits of a constant that is written down."""


class Fit(NamedTuple):
    """Constants that a fit has found.

    Examples
    --------
    >>> Fit({"step_ms": 1.0}, cost=2.0, evaluations=3).values["step_ms"]
    1.0
    """

    values: dict[str, float]
    """By name; of `PRIORS`."""
    cost: float
    """Half the sum of squares."""
    evaluations: int
    """How often all runs were simulated as a whole."""


def with_values(engine: EngineRecord, values: Mapping[str, float]) -> EngineRecord:
    """An engine with other constants; those of `FOLLOWERS` change on every GPU, the others where no GPU has its own.

    Parameters
    ----------
    engine
        The engine.
    values
        New values by name.

    Returns
    -------
    EngineRecord
        A copy.

    Examples
    --------
    >>> from helix_kit.profiles.engines import load_engine
    >>> with_values(load_engine("vllm-0.15"), {"step_ms": 2.0}).constants.step_ms.value
    2.0
    """
    assert engine.constants is not None, "a record of replicas has constants"
    known = engine.constants.by_name()
    update = {}
    for name, value in values.items():
        old = known[name]
        factor = value / old.value if name in FOLLOWERS else 1.0
        by_gpu = {gpu: _rounded(own * factor) for gpu, own in old.by_gpu.items()}
        update[name] = old.model_copy(update={"value": value, "by_gpu": by_gpu})
    constants: Constants = engine.constants.model_copy(update=update)
    return engine.model_copy(update={"constants": constants})


def fit_engine(training: Training, engine: EngineRecord, *, say: Callable[[str], None] = lambda _: None) -> Fit:
    """Fit the constants of `PRIORS`.

    Parameters
    ----------
    training
        Runs and what was measured.
    engine
        Its rules, and the constants that are not fitted.
    say
        Gets a line after each evaluation.

    Returns
    -------
    Fit
        Rounded to `DIGITS`.

    Raises
    ------
    InputError
        Nothing was measured.

    Examples
    --------
    >>> fit_engine(training, load_engine("vllm-0.15")).values    # doctest: +SKIP
    {'bandwidth_share': 0.88, ...}
    """
    runs = [run for run in training.runs if run.name in training.measured and training.wanted(run)]
    if not runs:
        raise InputError("expected measured training runs (train.csv)", field="runs")
    spreads = np.array([prior.spread for prior in PRIORS.values()])
    weights = _weights(training, runs)

    def values_at(x: np.ndarray) -> dict[str, float]:
        return {name: p.value * float(np.exp(v)) for (name, p), v in zip(PRIORS.items(), x, strict=True)}

    def logs_of(figures_of: Callable[[ExamRun], Figures]) -> np.ndarray:
        """Logarithms of figures, over the tolerances, all that is wanted of all runs."""
        parts: list[float] = []
        for run in runs:
            figures = figures_of(run)
            parts += [np.log(figures[key]) / TOLERANCES[key[1]] * weights[run.name] for key in training.wanted(run)]
        return np.array(parts)

    def logs(x: np.ndarray) -> np.ndarray:
        at = with_values(engine, values_at(x))
        return logs_of(lambda run: training.predicted(run, at))

    aim = logs_of(lambda run: training.measured[run.name])

    # x: logarithms of the constants over their priors. z: errors over their tolerances.
    x, radius = np.zeros(len(PRIORS)), MAX_STEP
    z = logs(x) - aim
    cost, evaluations = _cost(z, x, spreads), 1
    say(f"evaluation 1: cost {cost:.2f}")
    for _ in range(MAX_ROUNDS):
        slopes = np.array([(logs(x + STEP * unit) - aim - z) / STEP for unit in np.eye(len(x))]).T
        before = cost
        for _ in range(TRIES):
            step, expected = _linear_step(z, slopes, x, spreads, radius)
            new_z = logs(x + step) - aim
            new_cost, evaluations = _cost(new_z, x + step, spreads), evaluations + 1
            say(f"evaluation {evaluations}: cost {new_cost:.2f}")
            kept_promise = (cost - new_cost) / max(cost - expected, 1e-12)
            if new_cost < cost:
                x, z, cost = x + step, new_z, new_cost
                radius = min(MAX_STEP, radius * (2 if kept_promise > 0.75 else 1 if kept_promise > 0.25 else 0.5))
                break
            radius = float(np.abs(step).max()) / 3
        if before - cost < ENOUGH * cost:
            break
    values = {name: _rounded(value) for name, value in values_at(x).items()}
    return Fit(values, cost, evaluations)


def _weights(training: Training, runs: Sequence[ExamRun]) -> dict[str, float]:
    """By run: a model counts as one, however many runs it has, and a run however many stages.

    What the step model leaves out of a model is left out of all its runs, so that they are not independent.
    """
    runs_of = Counter(run.facts["model"] for run in runs)
    stages_of = {run.name: len({stage for stage, _ in training.wanted(run)}) for run in runs}
    return {run.name: (stages_of[run.name] * runs_of[run.facts["model"]]) ** -0.5 for run in runs}


def _cost(z: np.ndarray, x: np.ndarray, spreads: np.ndarray) -> float:
    """Half the sum of squares: errors over tolerances, by the pseudo-Huber loss, and distances from the priors."""
    return float(np.sum(np.sqrt(1 + z * z) - 1) + 0.5 * np.sum((x / spreads) ** 2))


def _linear_step(
    z: np.ndarray, slopes: np.ndarray, x: np.ndarray, spreads: np.ndarray, radius: float
) -> tuple[np.ndarray, float]:
    """The best step within `radius`, and its cost, if predictions were linear in the logarithms: a convex problem."""
    from scipy.optimize import minimize

    def at(step: np.ndarray) -> tuple[float, np.ndarray]:
        new_z, new_x = z + slopes @ step, x + step
        return _cost(new_z, new_x, spreads), slopes.T @ (new_z / np.sqrt(1 + new_z * new_z)) + new_x / spreads**2

    limits = [(-radius, radius)] * len(x)
    result = minimize(at, np.zeros(len(x)), jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 2000})
    return np.asarray(result.x), float(result.fun)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


__all__ = [
    "Fit",
    "Prior",
    "Training",
    "fit_engine",
    "with_values",
]
