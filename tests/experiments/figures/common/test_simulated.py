"""Simulations are shared by what they depend on, and by nothing else."""

from dataclasses import replace

import pytest

from helix_kit import Cluster, Model, Workload, plan
from helix_kit.experiments.figures.common import simulated as module
from helix_kit.experiments.figures.common.metrics import metrics_of
from helix_kit.experiments.figures.common.simulated import simulated, simulation_digest
from helix_kit.experiments.figures.common.simulation import Simulation
from helix_kit.experiments.machinery.registry import Context
from helix_kit.simulator import Feed


@pytest.fixture(scope="module")
def simulation():
    petals = plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="petals")
    requests = Workload.of([(0.0, 64, 8), (0.5, 32, 4), (1.0, 128, 6)])
    return Simulation(petals, requests, "online", warmup_s=0.0, duration_s=60.0)


def test_the_second_time_it_is_read_and_says_the_same(simulation, tmp_path, monkeypatch):
    first = simulated([simulation], Context(folder=tmp_path))
    assert first.metrics == metrics_of(simulation.run())
    monkeypatch.setattr(module, "run_together", lambda simulations: pytest.fail("simulated again"))
    renamed = simulation.plan.model_copy(update={"method": "by hand", "seconds": 9.0})
    again = simulated([replace(simulation, plan=renamed)], Context(folder=tmp_path))
    assert again == first and first.nodes.keys() <= set(simulation.plan.placement)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"duration_s": 61.0}, {"policy": "swarm"}, {"feed": Feed(3)}, {"kv_capacity": {}}]
)
def test_whatever_changes_the_run_changes_the_key(simulation, change):
    assert simulation_digest([replace(simulation, **change)]) != simulation_digest([simulation])


def test_requests_and_placement_are_part_of_the_key(simulation):
    longer = replace(simulation, workload=Workload.of([(0.0, 64, 8), (0.5, 32, 4), (1.0, 128, 7)]))
    swarm = replace(simulation, plan=plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="swarm"))
    keys = {simulation_digest(s) for s in ([simulation], [longer], [swarm], [simulation, simulation])}
    assert len(keys) == 4


def test_a_fast_run_is_shorter_and_kept_apart(simulation, tmp_path, monkeypatch):
    durations_s = []
    run = module.run_together
    monkeypatch.setattr(module, "run_together", lambda s: durations_s.append(s[0].duration_s) or run(s))
    for fast in (False, True):
        simulated([simulation], Context(fast=fast, folder=tmp_path))
    assert durations_s == [60.0, 60.0 * module.FAST_SHARE]
