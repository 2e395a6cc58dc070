"""Runs as read from a folder."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.experiments.exam.runs import read_runs


def test_lengths_are_those_that_the_server_sees(runs):
    first = read_runs(runs, "train")[0]
    assert first.lengths == (55, 165)
    assert first.requests == 200


def test_an_unknown_gpu_is_named(runs):
    path = runs / "train_workloads.yaml"
    path.write_text(path.read_text().replace("hardware: H100", "hardware: H1000"))
    with pytest.raises(InputError, match="H1000"):
        read_runs(runs, "train")
