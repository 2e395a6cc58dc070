"""Shared fixtures: small descriptions, and where reference data for independent checks may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HELIX_KIT_SHARED", ROOT.parent / "shared"))

# The same examples every time: a red test must stay red for whoever looks at it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the published reference tables and real traces; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference data (set HELIX_KIT_SHARED to its folder)")
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
