"""Fits without one model each, and the fits that were finished before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from helix_kit.experiments.exam.fit import (
    ENOUGH,
    MAX_ROUNDS,
    MAX_STEP,
    STEP,
    TRIES,
    Fit,
    fit_engine,
    with_values,
)
from helix_kit.experiments.exam.priors import PRIORS
from helix_kit.experiments.exam.scores import medians
from helix_kit.experiments.exam.training import TOLERANCES, Training
from helix_kit.profiles.engines import EngineRecord


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
        settings = (PRIORS, TOLERANCES, STEP, MAX_STEP, ENOUGH, MAX_ROUNDS, TRIES)
        data = (settings, training.seed, engine.rules.model_dump(), fixed,
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


__all__ = ["KeptFits", "LeftOut", "leave_one_model_out"]
