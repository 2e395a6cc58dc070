"""The program in a process of its own, with Ctrl-C in the middle: how it ends, how soon, and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

TAG = "HELIX_KIT_TEST_TAG"
"""A variable in the environment of the program and of whatever it starts."""
PATIENCE_S = 60.0
"""Seconds after which a program that does not end is killed. Nothing is expected to take so long."""


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str
    seconds: float
    """From Ctrl-C to the end."""
    cpu_s: float
    """CPU time of the program and its children in these seconds."""
    left: list[str]
    """Command lines of processes that outlived it by two seconds."""


def interrupted(*args: object, after_cpu_s: float, folder: Path, whole_group: bool = True) -> Ended:
    """Run ``helix-kit`` with these arguments, and press Ctrl-C once it has used `after_cpu_s` seconds of CPU time.

    CPU time, since other programs may have the cores: the moment is the same one on a busy machine. A terminal sends
    the signal to all processes of a command; with `whole_group` False only the program itself gets it.
    """
    tag = uuid.uuid4().hex
    command = [sys.executable, "-m", "helix_kit", *map(str, args)]
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        program = subprocess.Popen(
            command, stdout=to_out, stderr=to_err, env={**os.environ, TAG: tag}, start_new_session=True, cwd=folder
        )
    while (before_s := _cpu_s(tag)) < after_cpu_s:
        assert program.poll() is None, f"it ended before Ctrl-C: {err.read_text()}"
        time.sleep(0.05)
    pressed_s = time.monotonic()
    (os.killpg if whole_group else os.kill)(program.pid, signal.SIGINT)
    usage = None
    while usage is None and time.monotonic() - pressed_s < PATIENCE_S:
        pid, status, resources = os.wait4(program.pid, os.WNOHANG)
        if pid:
            usage, program.returncode = resources, os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.02)
    seconds = time.monotonic() - pressed_s
    left = _left(tag)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert usage is not None, f"it did not end within {PATIENCE_S:.0f} s: {err.read_text()}"
    cpu_s = usage.ru_utime + usage.ru_stime - before_s
    print(
        f"helix-kit {' '.join(map(str, args[:2]))}: ended {seconds:.2f} s after Ctrl-C, with {cpu_s:.2f} s of CPU time"
    )
    return Ended(program.returncode, out.read_text(), err.read_text(), seconds, cpu_s, list(left.values()))


def _tagged(tag: str) -> list[int]:
    """Processes whose environment has the tag."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and f"{TAG}={tag}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue  # It has ended, or is another user's.
    return found


def _cpu_s(tag: str) -> float:
    """CPU time of the processes and of their children that have ended."""
    ticks = 0
    for pid in _tagged(tag):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime and cstime of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _left(tag: str) -> dict[int, str]:
    """Process -> command line, of those that are left after two seconds."""
    end_s = time.monotonic() + 2.0
    while (pids := _tagged(tag)) and time.monotonic() < end_s:
        time.sleep(0.05)
    commands = {}
    for pid in pids:
        try:
            commands[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return commands
