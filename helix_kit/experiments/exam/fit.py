"""The constants of an engine, found from the training runs: a fit with priors, and fits that leave one model out.

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
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from helix_kit.errors import InputError
from helix_kit.experiments.exam.predictions import Figures, predict
from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.experiments.exam.scores import errors_of
from helix_kit.profiles.engines import Constants, EngineRecord
from helix_kit.profiles.step import step_costs

TOLERANCES = {"tpot_server_mean": 0.025, "ttft_mean": 0.05, "ttft_p90": 0.1, "ttft_p99": 0.2, "e2e_p99": 0.05}
"""Metric -> relative error that counts as one: about the root mean square of what the best constants leave. With less,
runs would be believed more than the model can explain, and would move constants that they do not decide."""
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


class Prior(NamedTuple):
    """What is expected of a constant before any run.

    Examples
    --------
    >>> PRIORS["bandwidth_share"].value
    0.9
    """

    value: float
    """The most likely one."""
    spread: float
    """Standard deviation of its logarithm: 0.1 says 10 %, 0.7 a factor of two."""
    reason: str
    """Where the value comes from."""


PRIORS: dict[str, Prior] = {
    "bandwidth_share": Prior(0.9, 0.05, "copies within an H100's memory reach nine tenths of the datasheet"),
    "context_bandwidth_share": Prior(0.85, 0.15, "paged attention reads blocks of 16 tokens, less evenly than weights"),
    "arithmetic_share": Prior(0.6, 0.2, "large matrix products in 16 bits within the power limit"),
    "step_ms": Prior(0.8, 0.5, "some tens of launches and the host's work that no graph hides"),
    "layer_ms": Prior(0.02, 0.5, "about ten kernels of 2 us that do not overlap"),
    "mixed_layer_ms": Prior(0.02, 0.7, "four launches of 5 us for attention outside of the graphs"),
    "eager_layer_ms": Prior(0.03, 0.7, "ten launches of 5 us, less what runs at the same time"),
    "quantised_expert_layer_ms": Prior(0.04, 0.7, "as much again as the kernels of 16-bit experts"),
    "quantised_expert_eager_layer_ms": Prior(0.6, 0.7, "launches of the host for each of three groups of kernels"),
    "single_expert_skew": Prior(1.0, 0.6, "Zipf's law"),
    "all_reduce_ms": Prior(0.006, 0.5, "one kernel with two barriers between GPUs"),
    "all_reduce_hop_share": Prior(0.5, 0.6, "an all-reduce in one or two shots has half of a ring's steps"),
    "all_reduce_bandwidth_share": Prior(0.4, 0.5, "messages of some 100 kB do not fill the link"),
    "sampling_ns_per_logit": Prior(0.05, 0.6, "a few passes over 4-byte logits"),
    "sorted_sampling_ns_per_logit": Prior(
        0.15, 0.5, "a radix sort of keys and indices, softmax, scan, masks and scatter move some 300 bytes a logit"
    ),
    "sorted_row_ns_per_logit": Prior(
        1.5, 0.6, "the scan takes 1,024 logits of a row in about a microsecond, two softmaxes a fifth of that each"
    ),
    "penalty_ns_per_logit": Prior(0.04, 0.6, "two counts in 8-byte integers, masks and updates move 85 bytes a logit"),
    "request_ms": Prior(0.005, 0.6, "some lines of Python for each request"),
    "receive_ms": Prior(5.0, 0.5, "HTTP, tokeniser and two messages between processes"),
    "answer_ms": Prior(2.0, 0.7, "one message between processes, detokeniser and HTTP"),
}
"""Constants that are fitted. The others stay as the engine's record has them."""
FOLLOWERS = (
    "arithmetic_share",
    "sampling_ns_per_logit",
    "sorted_sampling_ns_per_logit",
    "sorted_row_ns_per_logit",
    "penalty_ns_per_logit",
)
"""Constants whose values on other GPUs are a multiple of the fitted one, rather than values of their own."""


@dataclass
class Training:
    """Training runs with what was measured, and the predictions made of them so far.

    Examples
    --------
    >>> Training([], {}, engine).without("Qwen/Qwen3-14B").runs    # doctest: +SKIP
    []
    """

    runs: Sequence[ExamRun]
    """Workloads and settings."""
    measured: Mapping[str, Figures]
    """By name of the run."""
    seed: int = 0
    """Of arrivals."""
    known: dict[tuple[object, ...], Figures] = field(default_factory=dict)
    """Predictions by run and step costs: a constant that does not touch a run does not run it again."""

    def without(self, model: str) -> Training:
        """The runs of all other models."""
        return replace(self, runs=[run for run in self.runs if run.facts["model"] != model])

    def only(self, model: str) -> Training:
        """The runs of one model."""
        return replace(self, runs=[run for run in self.runs if run.facts["model"] == model])

    @property
    def models(self) -> list[str]:
        """In file order."""
        return list(dict.fromkeys(run.facts["model"] for run in self.runs))

    def predicted(self, run: ExamRun, engine: EngineRecord) -> Figures:
        """A run's figures, from memory where its steps cost the same as before."""
        assert run.work is not None and run.machine is not None
        costs = step_costs(engine.with_rules(**run.rules), run.work, run.machine)
        key = (
            run.name, self.seed, engine.receive_s, engine.answer_s, costs.linear_s.tobytes(), costs.fixed_s,
            costs.mixed_s, costs.eager_s, costs.graph_tokens, costs.context_s, costs.pair_s, costs.sampled_s,
        )  # fmt: skip
        if key not in self.known:
            self.known[key] = predict(run, engine, seed=self.seed).figures
        return self.known[key]

    def errors(self, engine: EngineRecord) -> list[dict[str, float]]:
        """Errors of the whole runs, in per cent."""
        return [errors_of(self.predicted(run, engine), self.measured[run.name]) for run in self.runs]

    def wanted(self, run: ExamRun) -> list[tuple[int, str]]:
        """The stages and metrics that a fit looks at; of the whole run only where its stages were not measured."""
        given = self.measured[run.name]
        stages = sorted({stage for stage, _ in given if stage >= 0}) or [-1]
        return [(s, m) for s in stages for m in TOLERANCES if given.get((s, m))]


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

    x, radius = np.zeros(len(PRIORS)), MAX_STEP
    z = logs(x) - aim
    cost, evaluations = _cost(z, x, spreads), 1
    say(f"evaluation 1: cost {cost:.2f}")
    for _ in range(MAX_ROUNDS):
        slopes = np.array([(logs(x + STEP * unit) - aim - z) / STEP for unit in np.eye(len(x))]).T
        before = cost
        for _ in range(TRIES):
            step, expected = _linear_step(z, slopes, x, spreads, radius)
            there = logs(x + step) - aim
            found, evaluations = _cost(there, x + step, spreads), evaluations + 1
            say(f"evaluation {evaluations}: cost {found:.2f}")
            kept_promise = (cost - found) / max(cost - expected, 1e-12)
            if found < cost:
                x, z, cost = x + step, there, found
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
        there, moved = z + slopes @ step, x + step
        return _cost(there, moved, spreads), slopes.T @ (there / np.sqrt(1 + there * there)) + moved / spreads**2

    limits = [(-radius, radius)] * len(x)
    found = minimize(at, np.zeros(len(x)), jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 2000})
    return np.asarray(found.x), float(found.fun)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


__all__ = [
    "Fit",
    "Prior",
    "Training",
    "fit_engine",
    "with_values",
]
