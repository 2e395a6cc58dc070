"""Own code by name: found where Python looks, in the current folder and in files; each fault is one clear message."""

from __future__ import annotations

import os
import sys

import pytest

from helix_kit import _plugins
from helix_kit.errors import InputError


@pytest.fixture(autouse=True)
def _in_own_folder(own_folder):
    """Every test runs in an empty folder of its own."""


def load(name):
    return _plugins.load(name, field="policy", kind="Class")


def fault(name):
    with pytest.raises(InputError) as caught:
        load(name)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"policy = {name!r}: ")
    return text


def test_a_file_a_module_of_the_folder_and_an_installed_one(tmp_path):
    (tmp_path / "mine.py").write_text("class A:\n    class B: pass\n")
    assert load("./mine.py:A").__name__ == load("mine.py:A").__name__ == load("mine:A").__name__ == "A"
    assert load(f"{tmp_path}/mine.py:A.B").__qualname__ == "A.B"
    assert load("collections:OrderedDict").__name__ == "OrderedDict"


def test_a_file_replaces_no_module_of_its_name_and_may_import_its_neighbours(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "json.py").write_text("from neighbour import VALUE\nclass A:\n    value = VALUE\n")
    (tmp_path / "sub" / "neighbour.py").write_text("VALUE = 7\n")
    import json

    assert load("sub/json.py:A").value == 7
    assert sys.modules["json"] is json


def test_a_file_is_run_once_and_again_when_it_has_changed(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class A: value = 1\n")
    first = load("./mine.py:A")
    assert load("./mine.py:A") is first
    before = path.stat()
    path.write_text("class A: value = 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # Compiled code of the first version looks current.
    assert load("./mine.py:A").value == 2


def test_dataclasses_in_a_file_work(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 3\n"
    )
    assert load("./mine.py:A")().x == 3


def test_what_is_not_there_is_named_with_what_is(tmp_path):
    (tmp_path / "mine.py").write_text("import os\nfrom collections import OrderedDict\nclass LeastLoaded: pass\n")
    text = fault("./mine.py:LeastLoad")
    assert "has no 'LeastLoad'" in text and "did you mean LeastLoaded" in text and "OrderedDict" not in text
    (tmp_path / "empty.py").write_text("")
    assert "it defines no class" in fault("empty.py:A")
    assert "there is no module 'absent'" in fault("absent:A") and str(tmp_path) in fault("absent:A")
    assert "there is no module 'absent'" in fault("absent.part:A")
    assert "there is no module 'collections.absent'" in fault("collections.absent:A")
    assert "absent.py cannot be read (No such file or directory)" in fault("./absent.py:A")
    assert "ends in .py" in fault("./:A")
    (tmp_path / "folder.py").mkdir()
    assert "cannot be read (Is a directory)" in fault("folder.py:A")
    assert "did you mean mine.py" in fault("./mine:A")


@pytest.mark.parametrize(
    "name", ["mine.py:", ":A", "mine:a b", "mine:", "mine::", "mine:1", "a b:A", "..mine:A", "a-b:A"]
)
def test_what_is_no_name_says_what_is(name):
    assert "module:" in fault(name) and "./file.py:" in fault(name)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import absent_package\n", "ModuleNotFoundError: No module named 'absent_package'"),
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("class A(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
@pytest.mark.parametrize("form", ["./faulty.py:A", "faulty:A"])
def test_code_that_cannot_be_imported_is_told_with_its_line(tmp_path, form, code, expected):
    (tmp_path / "faulty.py").write_text(code)
    text = fault(form)
    line = len(code.splitlines()) if "1 / 0" in code else 1
    assert "cannot be imported: " in text and expected in text
    assert str(tmp_path / "faulty.py") in text and f"line {line})" in text
    (tmp_path / "faulty.py").write_text("class A:\n    mended = True\n")
    assert load("./faulty.py:A").mended, "a fault is not remembered"


def test_the_current_folder_does_not_come_before_installed_modules(tmp_path):
    (tmp_path / "fractions.py").write_text("class Fraction: mine = True\n")
    assert not hasattr(load("fractions:Fraction"), "mine")
    assert load("./fractions.py:Fraction").mine
