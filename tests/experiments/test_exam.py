"""The examination on a small folder of runs made up here."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from helix_kit.cli import app
from helix_kit.experiments.exam import read_runs

RUNS = """
models:
  tiny: {layers: 4, hidden: 256, heads: 4, kv_heads: 2, head_dim: 64, intermediate: 512, vocab: 1000,
         quantisation: null, moe: null}
  experts: {layers: 4, hidden: 256, heads: 4, kv_heads: 2, head_dim: 64, intermediate: 512, vocab: 1000,
            quantisation: fp8, moe: {experts: 4, active: 1, expert_intermediate: 512, shared_experts: 0}}
runs:
- &run
  id: one
  model: tiny
  hardware: H100
  tp: 1
  workload_name: small
  workload: {stages: [{rate: 5.0, duration: 20}, {rate: 10.0, duration: 10}], system_prompt_len: 50, question_len: 150,
             output_len: 20, input_len_client_mean: 220}
  max_num_seqs: 16
  max_num_batched_tokens: 256
  max_model_len: 4096
  total_kv_blocks: 2000
- {<<: *run, id: two, model: experts, tp: 2}
"""


@pytest.fixture
def runs(tmp_path):
    for split in ("train", "eval"):
        (tmp_path / f"{split}_workloads.yaml").write_text(RUNS)
    return tmp_path


def test_lengths_are_those_that_the_server_sees(runs):
    first = read_runs(runs, "train")[0]
    assert first.lengths == (55, 165)
    assert first.requests == 200


def test_runs_are_predicted_and_scored(runs, tmp_path):
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "a"), "--json"])
    assert result.exit_code == 0
    figures = json.loads(result.stdout)["runs"]["one"]["predicted_ms"]
    # A token costs at least the step constant of about 1 ms, and the request more than its tokens.
    assert figures["tpot_server_mean"] > 0.9
    assert figures["e2e_mean"] == pytest.approx(figures["ttft_mean"] + 19 * figures["tpot_server_mean"], abs=0.05)
    with (tmp_path / "a" / "predictions-eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"-1", "0", "1"}
    (runs / "train.csv").write_text(f"run,stage,metric,value\none,-1,e2e_mean,{figures['e2e_mean'] * 2}\n")
    result = CliRunner().invoke(app, ["exam", "--runs", str(runs), "-o", str(tmp_path / "a")])
    assert "(-50.0 %)" in result.stdout
    assert "e2e_mean 50.0" in result.stdout
