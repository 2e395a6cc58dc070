"""Workers as threads, in a process that has not imported transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SERVE = """
import sys
assert "transformers" not in sys.modules
from helix_kit.runtime import serve
from helix_kit.runtime.weights.tiny import tiny_plan

folder = sys.argv[1]
plan = tiny_plan(folder, {f"n{i}": (0, 6) for i in range(4)})
assert "transformers" not in sys.modules, "the workers are to be the first that need it"
with serve(plan, folder, launcher="inproc", pace=False) as engine:
    print(engine.generate("w5 w6", max_new_tokens=3).finish_reason)
"""


def test_workers_start_together_in_a_process_without_transformers(tiny_llama: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SERVE, str(tiny_llama)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "length"
