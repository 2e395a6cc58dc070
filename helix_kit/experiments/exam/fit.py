"""The constants of an engine, found from the training runs: a fit with priors, and fits that leave one model out.

A fit minimises the sum of squares of two kinds of residuals. The first is the error of each stage in each of
`TOLERANCES`, as a logarithm over its tolerance; large ones count less (the pseudo-Huber loss), because one stage near
saturation would outweigh all others. The second is the distance of each constant from its prior, as a logarithm over
the prior's spread. What the runs do not decide stays at the prior. All fits start at the priors and take trust-region
steps, with derivatives from whole runs: in shorter ones the prompts that the prefix cache has not met yet weigh more.
Nothing is random but the arrivals, which a seed decides, so that the same runs give the same constants.

Only training runs are read: nothing here opens what was measured in evaluation runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helix_kit.errors import InputError
from helix_kit.experiments.exam.predictions import Figures, predict
from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.experiments.exam.scores import errors_of, medians
from helix_kit.profiles.engines import Constants, EngineRecord
from helix_kit.profiles.step import step_costs

TOLERANCES = {"tpot_server_mean": 0.015, "ttft_mean": 0.03, "ttft_p90": 0.06, "ttft_p99": 0.2, "e2e_p99": 0.04}
"""Metric -> relative error that counts as one. Percentiles of one run vary more than means."""
STEP = 0.03
"""Relative change of a constant for a derivative."""
MAX_EVALUATIONS = 8
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
    "sorted_sampling_ns_per_logit": Prior(0.4, 0.4, "a radix sort of keys and indices takes about eight passes"),
    "request_ms": Prior(0.005, 0.6, "some lines of Python for each request"),
    "receive_ms": Prior(5.0, 0.5, "HTTP, tokeniser and two messages between processes"),
    "answer_ms": Prior(2.0, 0.7, "one message between processes, detokeniser and HTTP"),
}
"""Constants that are fitted. The others stay as the engine's record has them."""
FOLLOWERS = ("sampling_ns_per_logit", "sorted_sampling_ns_per_logit")
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
    from scipy.optimize import least_squares

    runs = [run for run in training.runs if run.name in training.measured and training.wanted(run)]
    if not runs:
        raise InputError("expected measured training runs (train.csv)", field="runs")
    spreads = np.array([prior.spread for prior in PRIORS.values()])
    evaluations = 0

    def values_at(x: np.ndarray) -> dict[str, float]:
        return {name: p.value * float(np.exp(v)) for (name, p), v in zip(PRIORS.items(), x, strict=True)}

    def engine_at(x: np.ndarray) -> EngineRecord:
        return with_values(
            engine, {name: p.value * float(np.exp(v)) for (name, p), v in zip(PRIORS.items(), x, strict=True)}
        )

    def logs(x: np.ndarray) -> np.ndarray:
        """Logarithms of what is predicted, over the tolerances, all that is wanted of all runs."""
        at, parts = engine_at(x), []
        for run in runs:
            wanted, figures = training.wanted(run), training.predicted(run, at)
            weight = len({stage for stage, _ in wanted}) ** -0.5  # A run counts as one, however many stages it has.
            parts += [np.log(figures[key]) / TOLERANCES[key[1]] * weight for key in wanted]
        return np.array(parts)

    target = []
    for run in runs:
        wanted = training.wanted(run)
        weight = len({stage for stage, _ in wanted}) ** -0.5
        target += [np.log(training.measured[run.name][key]) / TOLERANCES[key[1]] * weight for key in wanted]
    aim = np.array(target)

    def residuals(x: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        z = logs(x) - aim
        found = np.concatenate([np.sign(z) * np.sqrt(2 * (np.sqrt(1 + z * z) - 1)), x / spreads])
        say(f"evaluation {evaluations}: cost {0.5 * float(found @ found):.2f}")
        return found

    def slopes(x: np.ndarray) -> np.ndarray:
        base = logs(x)
        z = base - aim
        loss = np.sqrt(2 * (np.sqrt(1 + z * z) - 1))
        # The derivative of the pseudo-Huber residual; 1 where z is 0.
        factor = np.where(np.abs(z) < 1e-6, 1.0, np.abs(z) / np.sqrt(1 + z * z) / np.maximum(loss, 1e-12))
        columns = []
        for i in range(len(x)):
            moved = x.copy()
            moved[i] += STEP
            columns.append((logs(moved) - base) / STEP * factor)
        return np.vstack([np.array(columns).T, np.diag(1 / spreads)])

    start = np.zeros(len(PRIORS))
    found = least_squares(residuals, start, jac=slopes, method="trf", max_nfev=MAX_EVALUATIONS, ftol=1e-3, xtol=1e-3)
    values = {name: _rounded(value) for name, value in values_at(found.x).items()}
    return Fit(values, float(found.cost), evaluations)


class KeptFits:
    """Fits that were finished before, in a file, so that a fit that was broken off goes on.

    Parameters
    ----------
    path
        A JSON file, which need not be there.
    training, engine
        What the fits depend on, beside this module's settings: fits of other data are not taken.

    Examples
    --------
    >>> KeptFits(Path("fits.json"), training, engine).fit(training, engine)    # doctest: +SKIP
    """

    def __init__(self, path: Path, training: Training, engine: EngineRecord) -> None:
        self._path = path
        fixed = {
            name: constant.value
            for name, constant in (engine.constants.by_name().items() if engine.constants else ())
            if name not in PRIORS
        }
        data = (PRIORS, TOLERANCES, STEP, MAX_EVALUATIONS, training.seed, engine.rules.model_dump(), fixed,
                [(run.name, run.stages, run.blocks, sorted(training.measured.get(run.name, {}).items()))
                 for run in training.runs])  # fmt: skip
        self._digest = hashlib.sha256(repr(data).encode()).hexdigest()[:16]

    def fit(self, training: Training, engine: EngineRecord, *, say: Callable[[str], None] = lambda _: None) -> Fit:
        """The fit on these runs, from the file where it is there."""
        kept = json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}
        key = f"{self._digest} {' '.join(run.name for run in training.runs)}"
        if key not in kept:
            kept[key] = fit_engine(training, engine, say=say)
            self._path.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        return Fit(*kept[key])


class LeftOut(NamedTuple):
    """The runs of a model that a fit has not seen.

    Examples
    --------
    >>> LeftOut("a", [{"e2e_mean": -3.0}], {}).medians
    {'e2e_mean': 3.0}
    """

    model: str
    """As on Hugging Face."""
    errors: list[dict[str, float]]
    """Of each run, in per cent."""
    values: dict[str, float]
    """Constants of the fit on the other models."""

    @property
    def medians(self) -> dict[str, float]:
        """Median absolute errors."""
        return medians(self.errors)


def leave_one_model_out(
    training: Training,
    engine: EngineRecord,
    *,
    kept: KeptFits | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[LeftOut]:
    """Fit without each model in turn, and predict its runs.

    Parameters
    ----------
    training
        Runs and what was measured.
    engine
        Its rules, and the constants that are not fitted.
    kept
        Fits that were finished before; None: all are made anew.
    say
        Gets a line for each evaluation.

    Returns
    -------
    list of LeftOut
        In file order.

    Examples
    --------
    >>> leave_one_model_out(training, load_engine("vllm-0.15"))    # doctest: +SKIP
    [LeftOut(...)]
    """
    left = []
    for model in training.models:
        make = kept.fit if kept else fit_engine
        fit = make(training.without(model), engine, say=_prefixed(say, f"without {model}: "))
        errors = training.only(model).errors(with_values(engine, fit.values))
        left.append(LeftOut(model, errors, fit.values))
    return left


def _prefixed(say: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda line: say(prefix + line)


class Sensitivity(NamedTuple):
    """Median absolute errors, in per cent, with one constant changed.

    Examples
    --------
    >>> Sensitivity({"e2e_mean": 5.0}, {"e2e_mean": 4.0}).less["e2e_mean"]
    5.0
    """

    less: dict[str, float]
    """With a fifth less of it."""
    more: dict[str, float]
    """With a fifth more of it."""


SENSITIVITY = 0.2


def sensitivities(
    training: Training, engine: EngineRecord, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, Sensitivity]:
    """What the errors of the training runs become when a constant is a fifth smaller or larger.

    Parameters
    ----------
    training
        Runs and what was measured.
    engine
        With the constants.
    say
        Gets the name of each constant.

    Returns
    -------
    dict of str to Sensitivity
        By constant. The memory of activations is left out: the runs tell how many blocks of KV cache they had.

    Examples
    --------
    >>> sensitivities(training, load_engine("vllm-0.15"))["bandwidth_share"]    # doctest: +SKIP
    """
    assert engine.constants is not None, "a record of replicas has constants"
    found = {}
    for name in engine.constants.by_name():
        if name == "activation_gb":
            continue
        say(name)
        less, more = (
            medians(training.errors(engine.model_copy(update={"constants": engine.constants.scaled(name, factor)})))
            for factor in (1 - SENSITIVITY, 1 + SENSITIVITY)
        )
        found[name] = Sensitivity(less, more)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


__all__ = [
    "Fit",
    "KeptFits",
    "LeftOut",
    "Prior",
    "Sensitivity",
    "Training",
    "fit_engine",
    "leave_one_model_out",
    "sensitivities",
    "with_values",
]
