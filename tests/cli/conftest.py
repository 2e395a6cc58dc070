"""Plan files that the tests of several commands read."""

from __future__ import annotations

from pathlib import Path

import pytest

import helix_kit as hk


@pytest.fixture(scope="session")
def single24_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "single24.json"
    hk.plan("single24", "llama2-70b").save(path)
    return path


@pytest.fixture
def plan_file(tmp_path: Path, overlapping_plan: hk.Plan) -> Path:
    """A plan of four machines."""
    path = tmp_path / "plan.json"
    overlapping_plan.save(path)
    return path
