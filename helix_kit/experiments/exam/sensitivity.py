"""How predictions depend on each constant, on the values assumed for GPUs that no fit has seen, and on arrivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from helix_kit.experiments.exam.predictions import predict
from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.experiments.exam.scores import medians
from helix_kit.experiments.exam.training import Training
from helix_kit.profiles.engines import EngineRecord

STEP = 0.2
"""Relative change of a constant for the errors of the training runs."""
GPU_STEP = 0.1
"""Relative change of a constant for the predictions of GPUs that were not fitted."""
SEEDS = (1, 2, 3, 4)
"""Of arrivals, beside the training's own."""


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
        less, more = (medians(training.errors(_scaled(engine, name, factor))) for factor in (1 - STEP, 1 + STEP))
        found[name] = Sensitivity(less, more)
    return found


class GpuSensitivity(NamedTuple):
    """How the predictions of runs on one GPU change with a constant of that GPU.

    Examples
    --------
    >>> GpuSensitivity("L40S", "bandwidth_share", {"e2e_mean": 9.0}, {"e2e_mean": -8.0}).more["e2e_mean"]
    -8.0
    """

    gpu: str
    """Of the catalogue."""
    constant: str
    """Its name."""
    less: dict[str, float]
    """Mean change of each metric, in per cent, with a tenth less."""
    more: dict[str, float]
    """The same with a tenth more."""


def gpu_sensitivities(
    runs: Sequence[ExamRun], engine: EngineRecord, *, say: Callable[[str], None] = lambda _: None
) -> list[GpuSensitivity]:
    """What the values assumed for GPUs without a run in the fit do to the predictions for them.

    Parameters
    ----------
    runs
        Some on GPUs that constants have values of their own for; the others are left out.
    engine
        With the constants.
    say
        Gets the name of each GPU.

    Returns
    -------
    list of GpuSensitivity
        By GPU and constant.

    Examples
    --------
    >>> gpu_sensitivities(runs, load_engine("vllm-0.15"))[0].gpu    # doctest: +SKIP
    'A100-80G'
    """
    assert engine.constants is not None, "a record of replicas has constants"
    own = {name: constant.by_gpu for name, constant in engine.constants.by_name().items() if constant.by_gpu}
    by_gpu: dict[str, list[ExamRun]] = {}
    for run in runs:
        if run.machine is not None and any(run.machine.gpu.name in values for values in own.values()):
            by_gpu.setdefault(run.machine.gpu.name, []).append(run)
    found = []
    for gpu, there in by_gpu.items():
        say(gpu)
        base = [predict(run, engine).figures for run in there]
        for name, values in own.items():
            if gpu in values:
                less, more = (
                    _mean_change(base, [predict(run, _scaled(engine, name, factor)).figures for run in there])
                    for factor in (1 - GPU_STEP, 1 + GPU_STEP)
                )
                found.append(GpuSensitivity(gpu, name, less, more))
    return found


def spread_of_arrivals(
    training: Training, engine: EngineRecord, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """What other arrivals at the same rates change: the median over the runs of the standard deviation, in per cent.

    Parameters
    ----------
    training
        The runs.
    engine
        With the constants.
    say
        Gets each seed.

    Returns
    -------
    dict of str to float
        By metric, of the whole runs.

    Examples
    --------
    >>> spread_of_arrivals(training, load_engine("vllm-0.15"))["e2e_mean"]    # doctest: +SKIP
    0.4
    """
    tried = [training, *(replace(training, seed=training.seed + seed) for seed in SEEDS)]
    by_run: list[dict[str, list[float]]] = [{} for _ in training.runs]
    for at in tried:
        say(f"arrivals of seed {at.seed}")
        for run, found in zip(training.runs, by_run, strict=True):
            for (stage, metric), value in at.predicted(run, engine).items():
                if stage == -1:
                    found.setdefault(metric, []).append(value)
    spreads = [{m: 100 * float(np.std(v, ddof=1) / np.mean(v)) for m, v in found.items()} for found in by_run]
    return medians(spreads)


def _scaled(engine: EngineRecord, name: str, factor: float) -> EngineRecord:
    assert engine.constants is not None, "a record of replicas has constants"
    return engine.model_copy(update={"constants": engine.constants.scaled(name, factor)})


def _mean_change(
    base: Sequence[Mapping[tuple[int, str], float]], changed: Sequence[Mapping[tuple[int, str], float]]
) -> dict[str, float]:
    metrics = [metric for stage, metric in base[0] if stage == -1]
    return {
        m: round(100 * float(np.mean([new[-1, m] / old[-1, m] - 1 for old, new in zip(base, changed, strict=True)])), 3)
        for m in metrics
    }


__all__ = ["GpuSensitivity", "Sensitivity", "gpu_sensitivities", "sensitivities", "spread_of_arrivals"]
