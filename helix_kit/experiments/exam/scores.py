"""All runs of a folder, predicted, and scored where they were measured."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helix_kit.experiments.exam.predictions import Figures, Prediction, predict
from helix_kit.experiments.exam.runs import SPLITS, ExamRun, read_runs
from helix_kit.profiles.engines import EngineRecord, load_engine

ENGINE = "vllm-0.15"


def read_measured(path: Path) -> dict[str, Figures]:
    """What was measured, by run.

    Parameters
    ----------
    path
        A CSV file with the columns run, stage, metric and value.

    Returns
    -------
    dict of str to Figures
        Empty where there is no such file.

    Examples
    --------
    >>> read_measured(Path("no such file"))
    {}
    """
    measured: dict[str, Figures] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                measured.setdefault(row["run"], {})[int(row["stage"]), row["metric"]] = float(row["value"])
    return measured


def errors_of(predicted: Figures, measured: Figures, stage: int = -1) -> dict[str, float]:
    """Errors of a run in per cent of what was measured.

    Parameters
    ----------
    predicted, measured
        Figures by stage and metric. A measured `itl_mean` is compared with our `tpot_server_mean`: it divides by the
        length of the answer as the client counts it, which a simulator cannot know.
    stage
        -1: the whole run.

    Returns
    -------
    dict of str to float
        By metric; positive where too much was predicted.

    Examples
    --------
    >>> errors_of({(-1, "e2e_mean"): 110.0}, {(-1, "e2e_mean"): 100.0})
    {'e2e_mean': 10.0}
    """
    given = {metric: value for (at, metric), value in predicted.items() if at == stage}
    if "tpot_server_mean" in given:
        given["itl_mean"] = given["tpot_server_mean"]
    real = {metric: value for (at, metric), value in measured.items() if at == stage}
    if "tpot_server_mean" in real:
        real.setdefault("itl_mean", real["tpot_server_mean"])
    both = [metric for metric in given if real.get(metric)]
    return {metric: round(100 * (given[metric] / real[metric] - 1), 6) for metric in both}


def medians(errors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median absolute error of each metric.

    Parameters
    ----------
    errors
        Of each run, as `errors_of` returns them.

    Returns
    -------
    dict of str to float
        By metric, over the runs that have it.

    Examples
    --------
    >>> medians([{"e2e_mean": -3.0}, {"e2e_mean": 1.0}, {"e2e_mean": 2.0}])
    {'e2e_mean': 2.0}
    """
    metrics = dict.fromkeys(metric for run in errors for metric in run)
    return {m: round(float(np.median([abs(run[m]) for run in errors if m in run])), 3) for m in metrics}


class Examined(NamedTuple):
    """A run that has been predicted.

    Examples
    --------
    >>> Examined("train", run, prediction, {"e2e_mean": 1.5})    # doctest: +SKIP
    """

    split: str
    """``train`` or ``eval``."""
    run: ExamRun
    """Its workload and settings."""
    prediction: Prediction
    """What it should measure."""
    errors: dict[str, float]
    """Of the whole run, in per cent; empty where nothing was measured."""


def examine(
    folder: Path, engine: EngineRecord | str = ENGINE, *, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> Iterator[Examined]:
    """Predict all runs of a folder.

    Parameters
    ----------
    folder
        With the files that the module's first lines name.
    engine
        The engine that ran.
    seed
        Of all runs.
    say
        Gets the name of each run as it starts.

    Yields
    ------
    Examined
        One after another.

    Examples
    --------
    >>> list(examine(Path("runs")))    # doctest: +SKIP
    """
    record = load_engine(engine) if isinstance(engine, str) else engine
    for split in SPLITS:
        measured = read_measured(folder / f"{split}.csv")
        for run in read_runs(folder, split):
            say(run.name)
            prediction = predict(run, record, seed=seed)
            yield Examined(split, run, prediction, errors_of(prediction.figures, measured.get(run.name, {})))


def write_predictions(path: Path, examined: Sequence[Examined]) -> None:
    """Write predictions as a CSV file: run, stage, metric, value in ms.

    Parameters
    ----------
    path
        The file.
    examined
        Runs that have been predicted.

    Examples
    --------
    >>> write_predictions(Path("predictions.csv"), [])    # doctest: +SKIP
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "stage", "metric", "value"))
        for entry in examined:
            for (stage, metric), value in entry.prediction.figures.items():
                writer.writerow((entry.run.name, stage, metric, f"{value:.4f}"))


__all__ = ["Examined", "errors_of", "examine", "medians", "read_measured", "write_predictions"]
