"""The Triton kernels equal their twins in torch, run by Triton's interpreter, which needs no GPU.

Triton stands apart from the environment, in the folder `triton` beside its packages (`make test` puts it there):
a torch for CPUs that finds Triton starts more slowly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TRITON = Path(sys.prefix) / "triton"
PROGRAM = Path(__file__).parents[2] / "helpers" / "interpreted_kernels.py"


@pytest.fixture(scope="module")
def differences() -> dict[str, float]:
    if not TRITON.is_dir():
        pytest.skip(f"Triton is not in {TRITON}: `make test` installs it")
    path = os.pathsep.join([str(TRITON), str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "kernel",
    [
        "rms_norm", "add_rms_norm", "sums of add_rms_norm", "silu_and_mul", "rotary_and_write",
        "keys of rotary_and_write", "values of rotary_and_write", "write", "attend, decodes", "attend, one decode",
        "attend, chunks", "attend, mixed",
    ],
)  # fmt: skip
def test_equals_its_twin(differences: dict[str, float], kernel: str) -> None:
    assert differences[kernel] <= 2e-5


def test_the_rows_beside_a_row_do_not_change_its_bits(differences: dict[str, float]) -> None:
    """In steps whose rows are all in blocks, as deterministic runs have them."""
    assert differences["a row beside others"] == 0
