"""The simulator against a real GPU: what an H100 served, from what was profiled there (docs/gpu-bench.md)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compared() -> dict[str, tuple[float, float]]:
    spec = importlib.util.spec_from_file_location("simulate_gpu_run", ROOT / "benchmarks" / "simulate_gpu_run.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program.compare(ROOT / "docs" / "gpu-check.json")


@pytest.mark.parametrize("rate", ["5", "10"])
@pytest.mark.parametrize("figure", ["output tokens/s", "TTFT mean, ms", "ITL mean, ms"])
def test_within_five_percent(compared: dict[str, tuple[float, float]], rate: str, figure: str) -> None:
    simulated, served = compared[f"{rate}: {figure}"]
    assert simulated == pytest.approx(served, rel=0.05)
