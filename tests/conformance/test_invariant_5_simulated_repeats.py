"""Invariant 5: same seed, same bytes out."""

from __future__ import annotations

import os
import subprocess
import sys

import simulated as helper
from hypothesis import given, settings
from simulated import cases

from helix_kit.simulator import simulate

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from simulated import make_plan
from helix_kit.simulator import NodeDies, simulate
from helix_kit.workload import Workload
plan = make_plan(((0, 4), (4, 8), (0, 5), (3, 8), (2, 8)), ("A100-40G", "T4", "L4", "V100-16G", "T4"), True)
workload = Workload.azure_conversation(rate_per_s=8.0, duration_s=30, seed=3)
for policy in ("helix", "swarm", "random", "shortest_queue", "fixed"):
    run = simulate(plan, workload, policy=policy, seed=4, faults=[NodeDies("n3", 10.0)], duration_s=60)
    print(run.to_json())
print(simulate(plan, workload, policy="swarm", execution="layerwise", duration_s=60).to_json())
"""


@settings(max_examples=40)
@given(case=cases())
def test_twice_the_same(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    texts = []
    for name in ("a.csv", "b.csv"):
        run = simulate(
            case.plan, case.workload, mode=case.mode, policy=case.policy, seed=case.seed, faults=case.faults,
            warmup_s=0, duration_s=120,
        )  # fmt: skip
        run.to_csv(folder / name)
        texts.append((run.to_json(), (folder / name).read_bytes()))
    assert texts[0] == texts[1]


def test_hash_seed_does_not_matter():
    here = os.path.dirname(helper.__file__)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(here=here)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=300,
        ).stdout
        for seed in ("0", "1", "77")
    ]  # fmt: skip
    assert len(outputs[0]) > 1000
    assert outputs[0] == outputs[1] == outputs[2]
