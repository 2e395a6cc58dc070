"""The dashboard's command line (its page is tested in tests/browser)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from helix_kit.widgets import dashboard


def test_command_serves_the_notebook_with_our_template(monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/already/there")
    monkeypatch.setenv("HELIX_KIT_CACHE", "/somewhere")
    line, environment = dashboard.command(Path("page.ipynb"), ["--no-browser"])
    assert environment["HELIX_KIT_DASHBOARD"] == str(Path("/somewhere/dashboard"))
    assert "--progressive_rendering=True" in line
    assert line[1:4] == ["-m", "voila", "page.ipynb"] and line[-1] == "--no-browser"
    share, kept = environment["JUPYTER_PATH"].split(os.pathsep)
    assert kept == "/already/there"
    template = Path(share) / "voila" / "templates" / "helix"
    assert (template / "conf.json").is_file()
    assert "//" not in (template / "index.html.j2").read_text(encoding="utf-8"), "no address of another machine"


def test_default_is_the_explore_notebook_and_a_missing_one_is_named(capsys):
    assert dashboard.NOTEBOOK.name == "06_explore.ipynb" and dashboard.NOTEBOOK.is_file()
    assert dashboard.main(["nowhere.ipynb"]) == 2 and "nowhere.ipynb" in capsys.readouterr().err


def test_what_was_kept_is_forgotten_on_request(monkeypatch, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "editor.plan.json").write_text("{}")
    monkeypatch.setenv("HELIX_KIT_DASHBOARD", str(kept))
    ran = []
    monkeypatch.setattr(
        dashboard.subprocess, "run", lambda line, **_: ran.append(line) or SimpleNamespace(returncode=0)
    )
    assert dashboard.main([]) == 0 and kept.exists()
    assert dashboard.main(["--forget", "--port=8899"]) == 0 and not kept.exists()
    assert "--port=8899" in ran[1] and "--forget" not in ran[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("target", "given", "expected", "absent"),
    [
        ("lab", [], ["jupyter lab"], ["--port", "--no-browser"]),
        ("lab", ["PORT=8899", "BROWSER=no"], ["--port=8899", "--no-browser"], []),
        ("lab", ["BROWSER=firefox"], ["jupyter lab"], ["--no-browser"]),
        ("dashboard", ["PORT=8899", "BROWSER=0", "FORGET=1"], ["--port=8899", "--no-browser", "--forget"], []),
    ],
)
def test_make_takes_a_port_and_a_browser(root, target, given, expected, absent):
    # The stamp is taken as made, so that nothing is installed.
    line = ["make", "-n", "-o", ".venv/.installed-demo", target, *given]
    # Not as a part of a `make test` that may run this: an inner make also prints where it works.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    shown = subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    command = shown.splitlines()[-1]
    assert all(text in command for text in expected) and not any(text in command for text in absent)
