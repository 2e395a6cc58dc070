"""Worker processes that answer lines: every line is answered once, and an end is told apart from a kill."""

import contextlib
import os
import subprocess
import sys
import time
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


CALLER = """
from helix_kit._line_workers import LineWorkers

with LineWorkers("sleeper", "head", 1) as workers:
    print(workers.ask("who"), end="", flush=True)
    workers.ask("sleep")
"""
SLEEPER = """
import os, time
from helix_kit._line_workers import serve

def answers(lines):
    next(lines)
    for line in lines:
        if line == "sleep\\n":
            time.sleep(600)
        yield str(os.getpid())

serve(answers)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes have no new parent there")
def test_a_worker_ends_with_its_caller_in_the_middle_of_an_answer(tmp_path, monkeypatch):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
    worker = int(caller.stdout.readline())
    caller.kill()
    caller.wait()
    caller.stdout.close()
    end_s = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end_s:
            os.kill(worker, 0)
            time.sleep(0.05)
        pytest.fail("the worker is still there")
