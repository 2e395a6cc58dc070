"""Annealing never loses what it was offered, finds what single moves reach, and stays within pins and bounds."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.annealing import Annealing
from helix_kit.placement.groups import groups_of
from helix_kit.placement.method import PlanOptions, Task
from helix_kit.placement.pattern.mixed_regions import array_flows
from helix_kit.placement.watch import Watch


def annealing_of(nodes, layers=8, pins=None, gbps=0.001, **options):
    network = {"within_region": {"bandwidth_gbps": 10}, "between_regions": {"bandwidth_gbps": gbps}}
    cluster = hk.Cluster.model_validate({"name": "some", "nodes": nodes, "network": network})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": layers}))
    task = Task(problem, Watch(60.0, counted=True), groups_of(problem), PlanOptions(**options))
    return Annealing(task, array_flows(problem, list(problem.kind_of), True), pins)


def test_what_is_offered_is_never_lost():
    annealing = annealing_of([{"gpu": "L4", "count": 3}])
    annealing.offer({"L4-0": (0, 4), "L4-1": (4, 8)})
    values = [annealing.value]
    for _ in range(3):
        annealing.advance(annealing.task.watch.for_part(0.2))
        values.append(annealing.value)
    assert values == sorted(values)
    assert annealing.value == pytest.approx(annealing.task.max_flow(annealing.placement).tokens_per_s, abs=0.002)


def test_regions_that_hold_the_model_alone_serve_side_by_side():
    """Links between the regions carry next to nothing: the best plan has a pipeline in each."""
    annealing = annealing_of([{"gpu": "A100-40G", "count": 2, "region": r} for r in ("east", "west")])
    annealing.advance(annealing.task.watch.for_part(3.0))
    one = annealing_of([{"gpu": "A100-40G", "count": 2}])
    one.advance(one.task.watch.for_part(3.0))
    assert annealing.value >= 1.99 * one.value > 0


def test_pinned_nodes_do_not_move():
    pins = {"L4-0": (2, 6)}
    annealing = annealing_of([{"gpu": "L4", "count": 4}], pins=pins)
    annealing.offer({"L4-0": (2, 6), "L4-1": (0, 4), "L4-2": (4, 8)})
    annealing.advance(annealing.task.watch.for_part(2.0))
    assert annealing.placement["L4-0"] == (2, 6)
    assert annealing.value > 0


def test_the_same_work_gives_the_same_placement():
    results = []
    for _ in range(2):
        annealing = annealing_of([{"gpu": "L4", "count": 3}, {"gpu": "T4", "count": 4}], layers=14, seed=5)
        annealing.advance(annealing.task.watch.for_part(1.0))
        results.append((annealing.value, annealing.placement))
    assert results[0] == results[1]
