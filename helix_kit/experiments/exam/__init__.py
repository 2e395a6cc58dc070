"""The examination of the engine model: real runs of vLLM, predicted from their workloads and settings alone.

A folder of runs holds ``train_workloads.yaml`` and ``eval_workloads.yaml``: models, GPUs, rates, lengths and the
engine's settings. ``train.csv`` holds what was measured (run, stage, metric, value in ms; stage -1 is the whole run).
The runs are not part of this package. `predict` simulates one, `examine` all of them, and `fit_engine` finds the
engine's constants from the training runs.
"""

from helix_kit.experiments.exam.predictions import Prediction, predict
from helix_kit.experiments.exam.runs import ExamRun, read_runs, work_of
from helix_kit.experiments.exam.scores import (
    Examined,
    errors_of,
    examine,
    medians,
    read_measured,
    write_predictions,
)

__all__ = [
    "ExamRun",
    "Examined",
    "Prediction",
    "errors_of",
    "examine",
    "medians",
    "predict",
    "read_measured",
    "read_runs",
    "work_of",
    "write_predictions",
]
