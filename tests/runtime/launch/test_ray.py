"""The same plan on a local Ray cluster of three machines (as far as Ray knows), one of which goes away."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
ray = pytest.importorskip("ray")

from helix_kit.cluster import Cluster  # noqa: E402
from helix_kit.errors import InputError  # noqa: E402
from helix_kit.placement.plan import Plan  # noqa: E402
from helix_kit.runtime import serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402

pytestmark = pytest.mark.slow


def mixed_plan(weights: Path) -> Plan:
    """Three nodes of three kinds; fast covers all layers, medium and slow together, too."""
    made = tiny_plan(weights, {"fast": (0, 6), "medium": (0, 4), "slow": (2, 6)}, step_ms=4.0)
    kinds = {"fast": "CPU-fast", "medium": "CPU-medium", "slow": "CPU-slow"}
    cluster = Cluster.model_validate(
        {"name": "mixed", "nodes": [{"name": name, "gpu": gpu} for name, gpu in kinds.items()]}
    )
    profile = made.profiles["CPU-fast"]
    profiles = {gpu: profile.model_copy(update={"kind": gpu}) for gpu in kinds.values()}
    fields = {name: getattr(made, name) for name in Plan.model_fields}
    return Plan(**{**fields, "cluster": cluster, "profiles": profiles})


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster as RayCluster

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    small = {"object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"CPU-fast": 1}, **small})
    small.pop("include_dashboard")
    nodes = {kind: cluster.add_node(num_cpus=1, resources={kind: 1}, **small) for kind in ("CPU-medium", "CPU-slow")}
    ray.init(address=cluster.address, logging_level="error")
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


def test_serves_and_survives_a_lost_machine(machines, tiny_llama: Path) -> None:
    cluster, nodes = machines
    plan = mixed_plan(tiny_llama)
    prompts = [[5 + n, 6, 7] for n in range(10)]
    options = {"max_new_tokens": 60, "ignore_eos": True}
    with serve(plan, tiny_llama, launcher="process", policy="random", pace=False) as engine:
        expected = [answer.token_ids for answer in engine.generate(prompts, **options)]
    # The node "fast" has two devices: two actors, which share its one unit of the resource.
    split = {"fast": ["cpu", "cpu"]}
    with serve(plan, tiny_llama, launcher="ray", policy="random", pace=True, devices=split) as engine:
        placed = {worker: facts.pid for worker, facts in engine.status().workers.items()}
        assert set(placed) == {"fast/0", "fast/1", "medium", "slow"} and len(set(placed.values())) == 4
        assert ray.available_resources().get("CPU-fast", 0) == 0
        handles = [engine.submit(p, **options) for p in prompts]
        while engine.status().tokens_out < 40:
            time.sleep(0.02)
        cluster.remove_node(nodes["CPU-slow"], allow_graceful=False)
        answers = [handle.result(120) for handle in handles]
        assert [a.token_ids for a in answers] == expected
        status = engine.status()
        assert status.workers["slow"].state == "lost"
        assert sum(a.record.restarts for a in answers) > 0
        assert all("slow" not in {s.node for s in a.pipeline} for a in answers if a.record.restarts)


def test_missing_machines_are_named(machines, tiny_llama: Path) -> None:
    made = mixed_plan(tiny_llama)
    nodes = [{"name": n.name, "gpu": "CPU-slow"} for n in made.cluster.nodes]
    fields = {name: getattr(made, name) for name in Plan.model_fields}
    plan = Plan(**{**fields, "cluster": Cluster.model_validate({"name": "slow", "nodes": nodes})})
    with pytest.raises(InputError, match=r"Ray resource CPU-slow: the plan needs 3, the Ray cluster has 1"):
        serve(plan, tiny_llama, launcher="ray")
