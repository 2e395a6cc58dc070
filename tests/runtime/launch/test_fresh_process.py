"""A worker in a process of its own: it ends with its parent, and says why it failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.runtime.spec import WorkerSpec


def start(folder: Path, **changes: object) -> subprocess.Popen[bytes]:
    spec = WorkerSpec(
        name="a", weights=str(folder), start=0, end=2, num_pages=8, coordinator="tcp://127.0.0.1:9", key_hex="00" * 32
    ).model_copy(update=changes)
    process = subprocess.Popen(
        [sys.executable, "-m", "helix_kit.runtime.launch.fresh_process"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write(spec.model_dump_json().encode() + b"\n")
    process.stdin.flush()
    return process


def test_the_end_of_its_input_ends_it(tiny_llama: Path) -> None:
    process = start(tiny_llama)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)  # it serves, whether or not a coordinator is there
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_what_it_cannot_load_is_told(tiny_llama: Path) -> None:
    process = start(tiny_llama, dtype="float12")
    try:
        told = process.stderr.readline()
        assert told.startswith(b"worker a: ") and b"float12" in told
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.communicate()
