"""The code of the pages works: files are written, commands are run, and Python examples give what they show.

A page is one session in an empty folder. A block that begins with ``# file: NAME`` is written to that file, ``$`` lines
of console blocks are run, and ``>>>`` examples are doctests. ``sh`` blocks need a GPU or a network: not run.
"""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "getting-started.md", *sorted((DOCS / "guide").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "index.md"], ids=lambda p: p.stem)
def test_page(page, tmp_path, monkeypatch, helix_kit):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=FLAGS)
    done = 0
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        first, _, rest = text.partition("\n")
        if first.startswith("# file: "):
            path = tmp_path / first.removeprefix("# file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest)
        elif language == "console":
            for line in text.splitlines():
                assert line.startswith("$ helix-kit "), line
                code, _, errors = helix_kit(*shlex.split(line)[2:])
                assert code == 0, f"{line}\n{errors}"
                done += 1
        elif language == "python":
            test = parser.get_doctest(text, names, page.name, str(page), 0)
            assert test.examples, "a python block shows what it gives (>>>)"
            runner.run(test, clear_globs=False)
            names.update(test.globs)
            done += len(test.examples)
    assert done and not runner.failures
