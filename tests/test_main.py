"""The entry point of the program."""

from __future__ import annotations

import sys

import pytest

from helix_kit.__main__ import main


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
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "helix-kit: stopped\n"
