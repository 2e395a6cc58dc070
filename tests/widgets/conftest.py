"""Plans for widgets, and the reason to skip where the notebook packages are absent."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget", reason="needs the notebooks extra")

from helix_kit import Cluster, Model, Plan, Problem


@pytest.fixture(scope="session")
def plan() -> Plan:
    """Four workers on one machine, two replicas with overlapping ranges."""
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    placement = {"CPU-fast-0": (0, 18), "CPU-medium-0": (12, 30), "CPU-slow-0": (18, 30), "CPU-slow-1": (0, 12)}
    return Plan.from_placement(problem, placement, method="hand")
