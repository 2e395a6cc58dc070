"""``helix-kit exam`` on a small folder of runs made up here."""

from __future__ import annotations

import csv
import json

import pytest
from exam_runs import write_runs
from typer.testing import CliRunner

from helix_kit.cli import app
from helix_kit.experiments.exam import fit as fit_module
from helix_kit.profiles.engines import load_engine


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)


def test_runs_are_predicted_and_scored(runs, tmp_path):
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "a"), "--json"])
    assert result.exit_code == 0
    figures = json.loads(result.stdout)["runs"]["one"]["predicted_ms"]
    # A token costs at least the step constant, and the request more than its tokens.
    assert figures["tpot_server_mean"] > load_engine("vllm-0.15").constants.step_ms.value
    assert figures["e2e_mean"] == pytest.approx(figures["ttft_mean"] + 19 * figures["tpot_server_mean"], abs=0.05)
    with (tmp_path / "a" / "predictions-eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"-1", "0", "1"}
    (runs / "train.csv").write_text(f"run,stage,metric,value\none,-1,e2e_mean,{figures['e2e_mean'] * 2}\n")
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "a")])
    assert "(-50.0 %)" in result.stdout
    assert "e2e_mean 50.0" in result.stdout


def test_a_fit_writes_a_record_and_a_page(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "MAX_ROUNDS", 0)
    CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "a")])
    (tmp_path / "a" / "predictions-train.csv").rename(runs / "train.csv")
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "b"), "--fit"])
    assert result.exit_code == 0, result.output
    engine = load_engine(tmp_path / "b" / "vllm-0.15.yaml")
    # Without a round every constant stays at its prior.
    assert engine.constants.layer_ms.value == fit_module.PRIORS["layer_ms"].value
    assert engine.rules == load_engine("vllm-0.15").rules
    page = (tmp_path / "b" / "engine-fidelity.md").read_text()
    assert "| tiny | 1 |" in page
    assert all(f"| `{name}` |" in page for name in engine.constants.by_name())


def test_storing_needs_a_fit(runs):
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "--store"])
    assert result.exit_code != 0
