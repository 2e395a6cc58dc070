"""An engine without work leaves the processor alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.runtime import serve
from helix_kit.runtime.weights.tiny import tiny_plan


def test_the_coordinator_rests_after_a_request(tiny_llama: Path) -> None:
    with serve(tiny_plan(tiny_llama, {"a": (0, 6)}), tiny_llama, launcher="inproc", pace=False) as engine:
        engine.generate([5, 6, 7], max_new_tokens=2, ignore_eos=True)
        before = engine.status().coordinator_cpu_s
        time.sleep(1.0)
        spent_s = engine.status().coordinator_cpu_s - before
    assert spent_s < 0.1, "a bell that nobody quiets keeps the loop turning: a third of a second was seen"
