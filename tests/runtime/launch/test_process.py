"""Worker processes: none is left behind, however the user's process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from greedy_tokens import greedy

torch = pytest.importorskip("torch")

from helix_kit.runtime.launch.process import is_stopped  # noqa: E402

PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from helix_kit.runtime import serve
from helix_kit.runtime.weights.tiny import tiny_plan
folder = Path(sys.argv[1])
plan = tiny_plan(folder, {"a": (0, 4), "b": (2, 6)})
engine = serve(plan, folder, pace=False)
pids = [w.pid for w in engine.status().workers.values()]
print(engine.generate([5, 6, 7], max_new_tokens=4, ignore_eos=True).token_ids, flush=True)
print("torch" in sys.modules, *pids, engine._coordinator.workers.factory.launcher.server_pid, flush=True)
if sys.argv[2] == "close":
    engine.close()
elif sys.argv[2] == "die":
    os._exit(1)
"""


@pytest.mark.parametrize("how", ["close", "exit", "die"])
def test_no_process_is_left_behind(tiny_llama: Path, how: str) -> None:
    """A script without `if __name__ == "__main__"` may serve, too; and its workers end with it, however it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_llama), how], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (1 if how == "die" else 0), done.stderr
    tokens, line = done.stdout.splitlines()
    assert tokens == str(greedy(tiny_llama, [5, 6, 7], 4))
    loaded, *pids = line.split()
    assert loaded == "False"  # the user's process does not need torch
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, f"still running: {pids}"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_stopped_process_is_told_from_one_that_waits() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert is_stopped(process.pid) is False
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert is_stopped(process.pid) is True
        process.send_signal(signal.SIGCONT)
        os.waitpid(process.pid, os.WCONTINUED)
        assert is_stopped(process.pid) is False
        process.kill()
    assert is_stopped(process.pid) is None
