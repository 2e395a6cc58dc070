"""Emulated clusters: runs are in emulated time, and late steps make a run invalid."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")


from helix_kit.cluster import Cluster
from helix_kit.placement.plan import Plan
from helix_kit.runtime.emulation import emulate, stand_in_weights
from helix_kit.runtime.replay import OverrunError
from helix_kit.runtime.weights.tiny import tiny_plan
from helix_kit.runtime.worker.stand_in import answer
from helix_kit.workload.workload import Workload


def far_plan(weights: Path, step_ms: float) -> Plan:
    """Two nodes, 100 ms away from each other."""
    made = tiny_plan(weights, {"a": (0, 3), "b": (3, 6)}, step_ms=step_ms)
    network = {"within_region": {"bandwidth_gbps": 10, "latency_ms": 0},
               "links": [{"between": ["a", "b"], "bandwidth_gbps": 10, "latency_ms": 100}]}  # fmt: skip
    nodes = [node.model_dump() for node in made.cluster.nodes]
    fields = {name: getattr(made, name) for name in Plan.model_fields}
    return Plan(**{**fields, "cluster": Cluster.model_validate({"name": "far", "nodes": nodes, "network": network})})


def test_a_run_is_in_emulated_time(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    plan = far_plan(tiny_llama, step_ms=40.0)  # 20 ms a layer, so that a step of 60 ms is late by nothing less
    with emulate(plan, time_scale=1.5, launcher="inproc") as engine:
        prompt = [7, 8, 9, 60]
        assert engine.generate(prompt, max_new_tokens=3).token_ids == answer(prompt, num_layers=6, new_tokens=3)
        run = engine.replay(Workload.of([(0.0, 5, 6), (0.2, 5, 6)]))
    summary = run.summary()
    assert summary["emulated"] and summary["time_scale"] == 1.5 and summary["finished"] == 2
    # Per token: six layers of 20 ms and one link of 100 ms.
    assert summary["decode_latency_s"]["p5"] >= 0.219
    assert {path.name for path in tmp_path.iterdir()} == {"stand-in-6-layers-v1"}


def test_too_slow_a_machine_is_refused(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    plan = far_plan(tiny_llama, step_ms=0.002)  # a microsecond a layer: no machine keeps up
    with (
        emulate(plan, time_scale=1.0, launcher="inproc") as engine,
        pytest.raises(OverrunError, match=r"of \d+ steps took longer .* larger time_scale than 1"),
    ):
        engine.replay(Workload.of([(0.0, 5, 6)]))


def test_parts_of_a_cluster_may_ask_for_the_same_stand_in_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_KIT_CACHE", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(stand_in_weights, [3] * 4))
    assert len(set(folders)) == 1 and (folders[0] / "config.json").is_file()
    assert [found.name for found in tmp_path.iterdir()] == [folders[0].name]  # no scratch folder is left
