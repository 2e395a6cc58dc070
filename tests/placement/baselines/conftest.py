"""The published placements of baselines."""

import json
from pathlib import Path

import pytest

import helix_kit as hk
from helix_kit.placement import Problem

SETUPS = {
    "single_cluster/layout_llama70b": ("single24", "llama2-70b"),
    "single_cluster/layout_llama30b": ("single24", "llama-30b"),
    "distributed_clusters/layout_llama70b": ("geo24", "llama2-70b"),
    "distributed_clusters/layout_llama30b": ("geo24", "llama-30b"),
    "high_heterogeneity/layout_llama70b": ("hetero42", "llama2-70b"),
}


@pytest.fixture(params=list(SETUPS))
def setup(request):
    """Name of one of the published settings."""
    return request.param


@pytest.fixture
def published(shared):
    """Function (setting, method) -> (problem, published placement)."""
    table = json.loads((Path(shared) / "reference" / "placements.json").read_text())

    def read(setup, method):
        cluster, model = SETUPS[setup]
        problem = Problem.of(hk.Cluster.preset(cluster), hk.Model.preset(model))
        names = [n.name for n in problem.cluster.nodes]
        placement = table[f"{setup}/{method}/{method}_sol.ini"]
        return problem, {names[int(i)]: tuple(span) for i, span in placement.items()}

    return read
