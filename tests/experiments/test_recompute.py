"""What is committed is what the code computes: quick ones always, simulated ones in the slow suite."""

import json
import shutil
from pathlib import Path

import pytest

from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.recording import drawing_digest, inputs_of, run_experiment
from helix_kit.experiments.machinery.registry import Context
from helix_kit.experiments.machinery.running import run_all

FIGURES = Path(__file__).resolve().parents[2] / "figures"


@pytest.mark.parametrize(
    "name", ["worked-example", "flow-network", "azure-trace", "topology", "placement-pictures", "gpu-catalogue"]
)
def test_same_table_and_picture(name, tmp_path):
    run_experiment(name, tmp_path, Context(fast=True))
    assert (tmp_path / f"{name}.csv").read_bytes() == (FIGURES / f"{name}.csv").read_bytes()
    run_experiment(name, tmp_path / "again", Context(fast=True))
    assert (tmp_path / f"{name}.pdf").read_bytes() == (tmp_path / "again" / f"{name}.pdf").read_bytes()


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("geo-distributed", ("geo", "llama2-70b", "helix", "offline")),
        ("geo-distributed", ("geo", "llama2-70b", "separate", "online")),
    ],
)
def test_a_row_of_the_evaluation(name, run):
    table = load(name, FIGURES)
    setup, model, method, mode = run
    mine = table[(table["model"] == model) & (table["method"] == method) & (table["mode"] == mode)]
    mine = mine[mine["source"] == "ours"].set_index("metric")["value"]
    again = metrics_of(published_run(setup, model, method, mode).run())
    assert set(again) == set(mine.index)
    for metric, value in again.items():
        assert value == pytest.approx(mine[metric], rel=1e-5)


@pytest.mark.slow
def test_deep_dives_come_out_as_committed_and_a_second_time_nothing_runs(tmp_path):
    names = ["placement-deep-dive", "scheduling-deep-dive", "congestion"]
    assert all(d.ran for d in run_all(names, tmp_path, jobs=2))
    assert not any(d.ran for d in run_all(names, tmp_path, jobs=2))
    for name in names:
        assert (tmp_path / f"{name}.csv").read_bytes() == (FIGURES / f"{name}.csv").read_bytes()


@pytest.mark.slow
def test_the_whole_evaluation_runs_fast_twice_to_the_same_bytes(tmp_path):
    names = ["geo-distributed", "equal-load", "all-results"]
    for folder in ("a", "b"):
        # Our plans by the clock would differ: both take the committed ones.
        (tmp_path / folder).mkdir()
        for end in ("csv", "png", "pdf"):
            shutil.copy(FIGURES / f"own-plans.{end}", tmp_path / folder)
        inputs = inputs_of("own-plans", tmp_path / folder, Context(fast=True))
        trail = {"inputs": inputs, "drawing": drawing_digest("own-plans"), "measured": {}}
        (tmp_path / folder / "own-plans.json").write_text(json.dumps(trail))
        ran = {d.name for d in run_all(names, tmp_path / folder, fast=True, jobs=2) if d.ran}
        assert set(names) <= ran and "own-plans" not in ran
    for name in names:
        for end in ("csv", "pdf"):
            assert (tmp_path / "a" / f"{name}.{end}").read_bytes() == (tmp_path / "b" / f"{name}.{end}").read_bytes()
