"""The best placement so far: only better ones replace it, within the cap on depth."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import groups_of
from helix_kit.placement.method import PlanOptions, Task
from helix_kit.placement.pattern import incumbent
from helix_kit.placement.pattern.incumbent import Incumbent
from helix_kit.placement.watch import Watch


def incumbent_of(**options):
    cluster = hk.Cluster.model_validate({"name": "four", "nodes": [{"gpu": "L4", "count": 4}]})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8}))
    return Incumbent(Task(problem, Watch(60.0), groups_of(problem), PlanOptions(**options)))


def test_only_better_placements_are_kept():
    best = incumbent_of()
    two = {"L4-0": (0, 4), "L4-1": (4, 8)}
    four = {**two, "L4-2": (0, 4), "L4-3": (4, 8)}
    first = best.consider(two)
    second = best.consider(four)
    assert second == pytest.approx(2 * first, rel=1e-6)
    assert best.consider(two) == first
    assert best.placement == four and best.value == second
    assert best.task.watch.value == second


def test_a_cap_on_depth_counts():
    best = incumbent_of(max_stages=2)
    assert best.consider({"L4-0": (0, 3), "L4-1": (3, 6), "L4-2": (6, 8)}) == 0.0
    assert best.placement == {}
    assert best.consider({"L4-0": (0, 4), "L4-1": (4, 8)}) > 0


def test_time_for_the_last_flow_is_measured_where_there_are_many_nodes(monkeypatch):
    best = incumbent_of()
    best.consider({"L4-0": (0, 4), "L4-1": (4, 8)})
    assert best.final_flow_s() == 0.0
    monkeypatch.setattr(incumbent, "MANY_NODES", 1)
    monkeypatch.setattr(incumbent, "RESERVE", 2.5)
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr(incumbent.time, "perf_counter", lambda: next(ticks))
    assert best.final_flow_s() == 7.5


def test_starts_keep_the_pins():
    best = incumbent_of()
    best.start({"L4-3": (2, 5)})
    assert best.placement["L4-3"] == (2, 5)
    assert best.value > 0
