"""Results reach the user: as files, or as JSON that every reader takes."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from helix_kit import InputError, _files
from helix_kit.cli.output import print_json, write
from helix_kit.errors import HelixKitError


def test_a_result_that_cannot_be_written_is_kept_elsewhere(tmp_path):
    with pytest.raises(InputError, match=r"--output: cannot be written \(Is a directory\); it is in ") as caught:
        write(tmp_path, "the result")
    kept = Path(str(caught.value).rsplit("; it is in ", 1)[1])
    assert kept.read_text() == "the result" and kept.name == tmp_path.name
    kept.unlink()
    kept.parent.rmdir()


def test_a_full_disk_is_no_wrong_input(monkeypatch, tmp_path):
    def fail(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_files, "write_result", fail)
    with pytest.raises(HelixKitError, match=r"--output: cannot be written \(No space left on device\)") as caught:
        write(tmp_path / "plan.json", "the result")
    assert caught.value.exit_code == 1
    kept = Path(str(caught.value).rsplit("; it is in ", 1)[1])
    assert kept.read_text() == "the result"
    kept.unlink()
    kept.parent.rmdir()


def test_numbers_that_are_not_finite_are_null(capsys):
    print_json({"rows": [{"low": float("nan"), "high": 2.0}], "gap": float("inf"), "name": "x", "pair": (1, None)})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"rows": [{"low": None, "high": 2.0}], "gap": None, "name": "x", "pair": [1, None]}
