"""Fits on runs whose constants are known, since they were simulated with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helix_kit.catalogue import gpus
from helix_kit.errors import InputError
from helix_kit.experiments.exam.fit import (
    PRIORS,
    Training,
    fit_engine,
    with_values,
)
from helix_kit.experiments.exam.left_out import leave_one_model_out
from helix_kit.experiments.exam.predictions import predict
from helix_kit.experiments.exam.runs import read_runs
from helix_kit.experiments.exam.sensitivity import gpu_sensitivities, sensitivities, spread_of_arrivals
from helix_kit.profiles.engines import load_engine

TRUE = {"step_ms": 2.4, "receive_ms": 9.0}
"""Three times the prior and nearly twice the prior: the constants that small models feel most."""


@pytest.fixture
def engine():
    return load_engine("vllm-0.15")


@pytest.fixture
def training(runs, engine):
    true = with_values(engine, {name: prior.value for name, prior in PRIORS.items()} | TRUE)
    found = read_runs(runs, "train")
    return Training(found, {run.name: predict(run, true).figures for run in found})


def test_a_fit_finds_what_made_the_runs(training, engine):
    fit = fit_engine(training, engine)
    # Steps of these models are constants almost alone, so that other constants take a part of the difference.
    assert fit.values["step_ms"] == pytest.approx(TRUE["step_ms"], rel=0.15)
    assert fit.values["receive_ms"] == pytest.approx(TRUE["receive_ms"], rel=0.15)
    errors = training.errors(with_values(engine, fit.values))
    assert max(abs(run["e2e_mean"]) for run in errors) < 1.0
    assert fit == fit_engine(Training(training.runs, training.measured), engine)


def test_each_model_is_left_out_once(training, engine):
    left = leave_one_model_out(training, engine)
    assert [entry.model for entry in left] == ["tiny", "experts"]
    # Without the model with 8-bit experts nothing moves the constants of such experts from their priors.
    assert left[1].values["quantised_expert_layer_ms"] == PRIORS["quantised_expert_layer_ms"].value
    assert all(abs(run["e2e_mean"]) < 10 for entry in left for run in entry.errors)


def test_a_constant_that_matters_has_a_sensitivity(training, engine):
    true = with_values(engine, {name: prior.value for name, prior in PRIORS.items()} | TRUE)
    found = sensitivities(training, true)
    assert found["step_ms"].more["e2e_mean"] > 5.0
    assert found["expert_skew"].more["e2e_mean"] == 0.0


def test_runs_without_measurements_are_refused(runs, engine):
    with pytest.raises(InputError, match="training runs"):
        fit_engine(Training(read_runs(runs, "train"), {}), engine)


def test_a_model_counts_as_one_however_many_runs_it_has(training, engine):
    first, second = training.runs
    again = replace(first, name="again")
    measured = {**training.measured, "again": training.measured[first.name]}
    twice = fit_engine(Training([first, again, second], measured), engine)
    # Twice the residuals, each by the root of a half: the same squares, but for what the loss takes off large ones.
    assert twice.values == pytest.approx(fit_engine(training, engine).values, rel=0.01)


def test_other_arrivals_and_other_constants_change_predictions(training, engine):
    spread = spread_of_arrivals(training, engine)
    assert 0 < spread["tpot_server_mean"] < spread["ttft_p99"]
    run = training.runs[0]
    on_l40s = replace(run, machine=replace(run.machine, gpu=gpus()["L40S"]))
    found = {entry.constant: entry for entry in gpu_sensitivities([run, on_l40s], engine)}
    assert {entry.gpu for entry in found.values()} == {"L40S"}
    assert set(found) == {name for name, c in engine.constants.by_name().items() if "L40S" in c.by_gpu}
    # With less bandwidth a token takes longer.
    assert found["bandwidth_share"].less["e2e_mean"] > 0 > found["bandwidth_share"].more["e2e_mean"]
