"""The coordinator passes hop times on to the policy, and leaves the processor alone when there is nothing to do."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helix_kit.cluster import COORDINATOR
from helix_kit.runtime import serve
from helix_kit.runtime.weights.tiny import tiny_plan
from helix_kit.scheduling import Topology
from helix_kit.scheduling.swarm import FIRST_HOP_TIME_S, Swarm

LAYER_MS = 20.0
"""Of one layer's decode: far above what a tiny model really takes."""


class Listening(Swarm):
    """Swarm that keeps what it is told."""

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        self.heard: dict[tuple[str, str], float] = {}

    def on_hop_time(self, source: str, target: str, seconds: float) -> None:
        super().on_hop_time(source, target, seconds)
        self.heard[source, target] = seconds


def test_swarm_hears_how_long_each_hop_takes(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 4), "b": (4, 6)}, step_ms=2 * LAYER_MS)  # half of it is decode
    policy = Listening(Topology.of(plan, links="all"))
    with serve(plan, tiny_llama, launcher="inproc", policy=policy, pace=True) as engine:
        engine.generate([5, 6, 7], max_new_tokens=6, ignore_eos=True)
        end = time.monotonic() + 10
        while len(policy.heard) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        shown = engine.status().workers["a"]
    assert set(policy.heard) == {(COORDINATOR, "a"), ("a", "b")}
    # A hop takes the node's whole step, which is padded to its layers' time.
    assert policy.heard[COORDINATOR, "a"] >= 0.9 * 4 * LAYER_MS / 1e3
    assert 0.9 * 2 * LAYER_MS / 1e3 <= policy.heard["a", "b"] < policy.heard[COORDINATOR, "a"]
    averages, _ = policy.hop_averages()
    assert averages[0] > FIRST_HOP_TIME_S  # four layers of 20 ms are more than was guessed
    assert not any("hop" in name or name in ("a", COORDINATOR) for name in asdict(shown)), (
        "shown are the worker's own counters"
    )


def test_the_coordinator_rests_after_a_request(tiny_llama: Path) -> None:
    with serve(tiny_plan(tiny_llama, {"a": (0, 6)}), tiny_llama, launcher="inproc", pace=False) as engine:
        engine.generate([5, 6, 7], max_new_tokens=2, ignore_eos=True)
        before = engine.status().coordinator_cpu_s
        time.sleep(1.0)
        spent_s = engine.status().coordinator_cpu_s - before
    assert spent_s < 0.1, "wake-ups that are not drained keep the loop turning: a third of a second was seen"
