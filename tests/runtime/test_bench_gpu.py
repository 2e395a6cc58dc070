"""The GPU benchmark, as far as it runs on a CPU: its functions measure and count. Without CUDA it exits with code 2."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_gpu.py"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("bench_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROMPT_TOKENS", 16)
    return module


def test_parts_run_on_a_cpu(bench, tiny_llama: Path) -> None:
    results = {
        "worker": bench.bench_worker(tiny_llama, "cpu", "float32", "auto", [1, 3], 4),
        "generate": bench.bench_generate(tiny_llama, "cpu", "float32", [1, 3], 4),
    }
    for found in results.values():
        assert set(found) == {1, 3} and all(rate > 0 for by in found.values() for rate in by.values())
    hops = bench.bench_hop(64, "cpu", "bfloat16", repeats=3)
    assert bench.rates(2, 5, 0.5, 1.5) == {"prefill_tokens_per_s": 64.0, "decode_tokens_per_s": 8.0}
    facts = dict.fromkeys(("device", "capability", "torch", "transformers", "flashinfer", "date", "weights"), "x")
    text = bench.document(facts | {"batches": [1, 3], "new_tokens": 4}, results, {"bfloat16": hops})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows[:4]} == {6} and {line.count("|") for line in rows[4:]} == {5}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_no_gpu_is_one_clear_line() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("bench-gpu needs a CUDA device") and done.stderr.count("\n") == 1
