"""The paper's program has the rows and columns that the published solver logs report, pruned and whole."""

import csv

import pytest

import helix_kit as hk
from helix_kit import _files
from helix_kit.placement.paper import program as paper_milp
from helix_kit.placement.problem import Problem

LOGS = [
    row
    for row in csv.DictReader((_files.data_dir() / "published" / "solver.csv").open(encoding="utf-8"))
    if row["constraints"]
]


@pytest.mark.parametrize("log", LOGS, ids=lambda row: f"{row['cluster']}-{row['model']}-{row['variant']}")
def test_rows_and_columns_are_the_published_ones(log):
    problem = Problem.of(hk.Cluster.preset(log["cluster"]), hk.Model.preset(log["model"]))
    # 12 links at each end is the published pruning; cluster10 has no more than that.
    degree = None if log["variant"].startswith("not pruned") else 12
    size = paper_milp.size_of(paper_milp.build(problem, degree=degree))
    assert (size.constraints, size.variables) == (int(log["constraints"]), int(log["variables"]))
