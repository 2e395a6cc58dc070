"""The reason to skip where the notebook packages are absent, and the plan to show."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget", reason="needs the notebooks extra")

from helix_kit import Plan


@pytest.fixture
def plan(overlapping_plan: Plan) -> Plan:
    """Four machines with overlapping ranges."""
    return overlapping_plan
