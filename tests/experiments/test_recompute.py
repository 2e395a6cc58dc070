"""What is committed is what the code computes: quick ones always, simulated ones in the slow suite."""

from pathlib import Path

import pytest

from helix_kit.experiments import published
from helix_kit.experiments.evaluation import metrics_of
from helix_kit.experiments.registry import Context, load, run_experiment
from helix_kit.experiments.running import run_all

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
    again = metrics_of(published.find(setup, model, method, mode).run())
    assert set(again) == set(mine.index)
    for metric, value in again.items():
        assert value == pytest.approx(mine[metric], rel=1e-5)


@pytest.mark.slow
def test_whole_evaluation_fast_and_a_second_time_nothing(tmp_path):
    names = ["placement-deep-dive", "scheduling-deep-dive", "geo-distributed"]
    first = list(run_all(names, tmp_path, fast=True, jobs=2))
    assert all(d.ran for d in first) and {d.name for d in first} == {*names, "own-plans"}
    assert not any(d.ran for d in run_all(names, tmp_path, fast=True))
    for name in names[:2]:
        assert (tmp_path / f"{name}.csv").read_bytes() == (FIGURES / f"{name}.csv").read_bytes()
