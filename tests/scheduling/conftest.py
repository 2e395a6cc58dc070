"""A plan that the tests of scheduling share."""

from __future__ import annotations

import pytest

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem


@pytest.fixture(scope="module")
def plan():
    cluster = Cluster.model_validate(
        {"name": "c", "nodes": [{"gpu": "A100-40G", "count": 4}, {"gpu": "L4", "count": 6}, {"gpu": "T4", "count": 8}]}
    )
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    spans = {f"A100-40G-{i}": (15 * i, 15 * i + 15) for i in range(4)}
    spans |= {f"L4-{i}": (10 * i, 10 * i + 10) for i in range(6)}
    spans |= {
        f"T4-{i}": s
        for i, s in enumerate([(0, 8), (8, 16), (16, 24), (24, 31), (30, 37), (37, 45), (45, 53), (53, 60)])
    }
    return Plan.from_placement(problem, spans, method="hand")
