"""`helix-kit reproduce`: runs, redraws and lists experiments."""

import json

import pytest
from typer.testing import CliRunner

from helix_kit.cli import app

pytest.importorskip("matplotlib")


def test_the_command_redraws_and_tells_unknown_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    assert call(app, ["reproduce", "gpu-catalogue", "--json"]).exit_code == 0
    (tmp_path / "figures" / "gpu-catalogue.png").unlink()
    assert json.loads(call(app, ["reproduce", "--all", "--redraw", "--json"]).stdout) == {
        "gpu-catalogue": {"redrawn": True}
    }
    assert (tmp_path / "figures" / "gpu-catalogue.png").is_file()
    wrong = call(app, ["reproduce", "gpu-catalog"])
    assert wrong.exit_code != 0 and "did you mean gpu-catalogue" in str(wrong.exception)
    listed = json.loads(call(app, ["reproduce", "--json"]).stdout)
    assert listed["gpu-catalogue"]["current"] and not listed["topology"]["current"]


def test_the_command_puts_fast_results_into_their_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wanted in ("azure-trace --json --fast", "azure-trace --json"):
        result = CliRunner().invoke(app, ["reproduce", *wanted.split()])
        assert result.exit_code == 0 and json.loads(result.stdout)["azure-trace"]["ran"]
    trails = [
        json.loads((tmp_path / folder / "azure-trace.json").read_text()) for folder in ("figures/fast", "figures")
    ]
    assert [t["inputs"]["fast"] for t in trails] == [True, False]
    assert not json.loads(CliRunner().invoke(app, ["reproduce", "azure-trace", "--json"]).stdout)["azure-trace"]["ran"]
