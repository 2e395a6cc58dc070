"""Plans to draw: small hand-made ones on presets, so that no solver is needed."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem


@pytest.fixture(scope="session")
def two_regions() -> Cluster:
    """Four A100 in one region, a pair of T4 kinds in the other, and a thin link between them."""
    return Cluster.model_validate(
        {
            "name": "two-regions",
            "coordinator": {"region": "us"},
            "nodes": [
                {"gpu": "A100-40G", "count": 4, "region": "us"},
                {"gpu": "L4", "count": 6, "region": "eu"},
                {"gpu": "T4", "region": "eu"},
            ],
            "network": {
                "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
                "between_regions": {"bandwidth_gbps": 0.01, "latency_ms": 50},
            },
        }
    )


@pytest.fixture(scope="session")
def regions_plan(two_regions: Cluster) -> Plan:
    """A chain through both regions; the thin link between them is the bottleneck, and T4-0 holds nothing."""
    problem = Problem.of(two_regions, Model.preset("llama2-70b"))
    placement = {f"A100-40G-{i}": (10 * i, 10 * i + 10) for i in range(4)}
    placement |= {f"L4-{i}": (40 + 7 * i, min(80, 47 + 7 * i)) for i in range(6)}
    return Plan.from_placement(problem, placement, method="hand")
