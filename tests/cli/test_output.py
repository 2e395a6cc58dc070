"""Results reach the user: as files, or as JSON that every reader takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helix_kit import InputError
from helix_kit.cli.output import print_json, write


def test_a_result_that_cannot_be_written_is_kept_elsewhere(tmp_path):
    with pytest.raises(InputError, match=r"--output: cannot be written \(Is a directory\); it is in ") as caught:
        write(tmp_path, "the result")
    kept = Path(str(caught.value).rsplit("; it is in ", 1)[1])
    assert kept.read_text() == "the result" and kept.name == tmp_path.name
    kept.unlink()
    kept.parent.rmdir()


def test_numbers_that_are_not_finite_are_null(capsys):
    print_json({"rows": [{"low": float("nan"), "high": 2.0}], "gap": float("inf"), "name": "x", "pair": (1, None)})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"rows": [{"low": None, "high": 2.0}], "gap": None, "name": "x", "pair": [1, None]}
