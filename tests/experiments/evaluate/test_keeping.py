"""A folder belongs to one evaluation, and gives back what was put in."""

from __future__ import annotations

from pathlib import Path

import pytest

from helix_kit import Workload
from helix_kit.errors import InputError
from helix_kit.experiments.evaluate.keeping import Folder
from helix_kit.experiments.evaluate.load import Load
from helix_kit.report import Run


def test_other_settings_are_refused_by_name(tmp_path: Path):
    folder = Folder(tmp_path / "kept")
    folder.open({"model": "a", "seed": 0})
    Folder(tmp_path / "kept").open({"model": "a", "seed": 0})
    with pytest.raises(InputError, match="seed = 1"):
        folder.open({"model": "a", "seed": 1})


def test_requests_and_runs_come_back(tmp_path: Path):
    folder = Folder(tmp_path)
    folder.open({})
    load = Load(Workload.constant(2.0, 3.0, input_tokens=9, output_tokens=4), (1.0, 3.0), 7, ("said",))
    folder.keep_load("online", load)
    assert Folder(tmp_path).load("online") == load and Folder(tmp_path).load("offline") is None
    record = {"method": "petals+random", "mode": "online", "source": "real workers", "metrics": {"x": 1.0}}
    folder.keep_run(record, Run([], window=(0.0, 1.0)))
    assert Folder(tmp_path).run("petals+random", "online", "real workers") == record
    assert Folder(tmp_path).run("petals+random", "online", "simulated") is None


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = Folder(None)
    folder.open({"seed": 0})
    folder.keep_load("online", Load(Workload(()), (0.0, 1.0)))
    assert folder.load("online") is None and not list(tmp_path.iterdir())
