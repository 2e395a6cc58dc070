"""The dashboard's command line (its page is tested in tests/browser)."""

from __future__ import annotations

import os
from pathlib import Path

from helix_kit.widgets import dashboard


def test_command_serves_the_notebook_with_our_template(monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/already/there")
    line, environment = dashboard.command(Path("page.ipynb"), ["--no-browser"])
    assert line[1:4] == ["-m", "voila", "page.ipynb"] and line[-1] == "--no-browser"
    share, kept = environment["JUPYTER_PATH"].split(os.pathsep)
    assert kept == "/already/there"
    template = Path(share) / "voila" / "templates" / "helix"
    assert (template / "conf.json").is_file()
    assert "//" not in (template / "index.html.j2").read_text(encoding="utf-8"), "no address of another machine"


def test_default_is_the_explore_notebook_and_a_missing_one_is_named(capsys):
    assert dashboard.NOTEBOOK.name == "06_explore.ipynb" and dashboard.NOTEBOOK.is_file()
    assert dashboard.main(["nowhere.ipynb"]) == 2 and "nowhere.ipynb" in capsys.readouterr().err
