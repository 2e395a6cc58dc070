"""A small plan that the simulator's tests share."""

from __future__ import annotations

import pytest

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem


@pytest.fixture(scope="session")
def plan() -> Plan:
    """Seven nodes in three stages of a 30B model, two replicas a stage and one node that spans two."""
    cluster = Cluster.model_validate(
        {
            "name": "seven",
            "coordinator": {"region": "a"},
            "nodes": [
                {"gpu": "A100-40G", "count": 3, "region": "a"},
                {"gpu": "L4", "gpus_per_node": 2, "count": 4, "region": "b"},
            ],
            "network": {
                "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
                "between_regions": {"bandwidth_gbps": 1, "latency_ms": 20},
            },
        }
    )
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    spans = {
        "A100-40G-0": (0, 20),
        "A100-40G-1": (20, 40),
        "A100-40G-2": (40, 60),
        "L4x2-0": (0, 20),
        "L4x2-1": (15, 35),
        "L4x2-2": (35, 50),
        "L4x2-3": (45, 60),
    }
    return Plan.from_placement(problem, spans, method="hand")
