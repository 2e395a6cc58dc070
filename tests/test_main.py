"""The entry point of the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helix_kit.__main__ import run


class Pressed:
    """Ctrl-C while the commands load."""

    @staticmethod
    def find_spec(name, *_):
        if name == "helix_kit.cli":
            raise KeyboardInterrupt


def test_ctrl_c_while_the_commands_load_is_one_message(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "helix_kit.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Pressed, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "helix-kit: stopped\n"


PROGRAM = """
import atexit, sys
from helix_kit import __main__, cli

atexit.register(print, "at the end")
cli.main = lambda: {end}
sys.modules["helix_kit.cli"] = cli
__main__.main()
"""


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('why')", 1)])
def test_what_is_registered_for_the_end_is_called(end, code):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "at the end\n")
    assert done.stderr == ("why\n" if code == 1 else "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_output_that_cannot_be_written_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "helix_kit", "--version"], check=False, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode not in (0, 130)
