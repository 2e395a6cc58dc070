"""A folder of runs made up here."""

from __future__ import annotations

import pytest
from exam_runs import write_runs


@pytest.fixture
def runs(tmp_path):
    return write_runs(tmp_path)
