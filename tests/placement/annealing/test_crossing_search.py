"""Annealing over regions keeps what it was offered, counts links between regions, and reports the exact flow."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.annealing import CrossingAnnealing
from helix_kit.placement.groups import groups_of
from helix_kit.placement.method import PlanOptions, Task
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.watch import Watch


def annealing_of(nodes, layers=8, pins=None, gbps=0.01, **options):
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": gbps}}
    cluster = hk.Cluster.model_validate({"name": "some", "nodes": nodes, "network": network})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": layers}))
    task = Task(problem, Watch(60.0, counted=True), groups_of(problem), PlanOptions(**options))
    return CrossingAnnealing(task, array_flows(problem, list(problem.kind_of), True), pins)


def run(annealing, legs=6):
    values = [annealing.value]
    for _ in range(legs):
        annealing.advance(annealing.task.watch.for_part(1.0))
        values.append(annealing.value)
    return values


def test_values_never_fall_and_are_the_exact_flow():
    annealing = annealing_of([{"gpu": "L4", "count": 3, "region": r} for r in ("east", "west")])
    annealing.offer({"L4-0": (0, 4), "L4-1": (4, 8), "L4-3": (0, 4), "L4-4": (4, 8)})
    values = run(annealing)
    assert values == sorted(values)
    assert values[-1] > values[0]
    assert annealing.value == pytest.approx(annealing.task.max_flow(annealing.placement).tokens_per_s, abs=0.002)
    worse = {"L4-0": (0, 4), "L4-1": (4, 8)}
    annealing.offer(worse)
    assert annealing.placement != worse
    assert annealing.value == values[-1]


def test_pinned_nodes_do_not_move():
    pins = {"L4-0": (2, 6)}
    annealing = annealing_of([{"gpu": "L4", "count": 3, "region": r} for r in ("east", "west")], pins=pins)
    annealing.offer({"L4-0": (2, 6), "L4-1": (0, 4), "L4-2": (4, 8)})
    run(annealing)
    assert annealing.placement["L4-0"] == (2, 6)


def test_the_same_work_gives_the_same_placement():
    results = []
    for _ in range(2):
        annealing = annealing_of([{"gpu": "L4", "count": 3, "region": r} for r in ("east", "west")], seed=5)
        annealing.offer({"L4-0": (0, 4), "L4-1": (4, 8)})
        results.append((run(annealing, legs=2), annealing.placement))
    assert results[0] == results[1]


def test_nothing_happens_before_a_placement_is_offered():
    annealing = annealing_of([{"gpu": "L4", "count": 2, "region": r} for r in ("east", "west")])
    assert run(annealing, legs=1) == [0.0, 0.0]
