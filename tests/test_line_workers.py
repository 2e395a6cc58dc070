"""Worker processes that answer lines: every line is answered once, and an end is told apart from a kill."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from helix_kit._line_workers import LineWorkers
from helix_kit.errors import HelixKitError

PROGRAM = """
import os
from helix_kit._line_workers import serve

def answers(lines):
    header = next(lines).strip()
    for line in lines:
        if line == "leave\\n":
            os._exit(0)
        yield f"{header} {int(line) ** 2}"

serve(answers)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "squares.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return "squares"


def test_lines_are_answered_by_whichever_worker_is_free(module):
    with LineWorkers(module, "head", 2) as workers, ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(workers.ask, map(str, range(20))))
    assert answers == [f"head {n**2}\n" for n in range(20)]


def test_a_worker_that_ends_is_an_error_and_one_that_is_killed_is_none(module):
    with LineWorkers(module, "head", 1) as workers:
        with pytest.raises(HelixKitError, match=r"squares.*ended before it answered"):
            workers.ask("leave")
        workers.kill()
        assert workers.ask("3") is None
