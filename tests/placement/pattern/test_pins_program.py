"""Segments between pins, and stages that fill them."""

import pytest

import helix_kit as hk
from helix_kit.placement import Problem
from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.pins_program import PinnedSearch, Segment, SegmentStage, choose, segments_of
from helix_kit.placement.pattern.stages import PatternStage
from helix_kit.placement.solvers import SolverSettings
from helix_kit.placement.watch import Watch


def test_segments_lie_between_the_ends_of_pins():
    """Pins [0, 3) and [2, 6) of eight layers: both carry layer 2, none the last two."""
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "A100-40G", "count": 3}]})
    problem = Problem.of(cluster, hk.Model.preset("llama2-70b").model_copy(update={"num_layers": 8}))
    three, four = (problem.throughput("A100-40G-0", k) for k in (3, 4))
    assert segments_of(problem, {"A100-40G-0": (0, 3), "A100-40G-1": (2, 6)}) == [
        Segment(0, 2, three),
        Segment(2, 3, three + four),
        Segment(3, 6, four),
        Segment(6, 8, 0),
    ]


GROUP = Group("L4", "", tuple("abcdef"), (90.0, 40.0))


def test_stages_carry_what_the_pins_leave():
    """Of 60 tokens/s the pin carries 20 over two layers, and one L4 with both adds 40. Two more layers take two L4."""
    search = PinnedSearch({"pin": (0, 2)}, [Segment(0, 2, 20.0), Segment(2, 4, 0.0)], [GROUP], Watch(20))
    placement = search.attempt(60.0)
    assert placement.pop("pin") == (0, 2)
    held = [
        sum(GROUP.throughput[e - s - 1] for s, e in placement.values() if s <= layer < e) + 20.0 * (layer < 2)
        for layer in range(4)
    ]
    assert min(held) >= 60.0
    assert search.attempt(2000.0) is None


@pytest.mark.parametrize(("max_depth", "found"), [(3, True), (2, False), (1, False)])
def test_pins_count_towards_the_depth(max_depth, found):
    """The pin carries layers 0 and 1 alone. Layers 2 and 3 at 60 tokens/s take an L4 each, or two L4 side by side."""
    segments = [Segment(0, 2, 100.0), Segment(2, 5, 0.0)]
    search = PinnedSearch({"pin": (0, 2)}, segments, [GROUP], Watch(20), max_depth=max_depth)
    assert (search.attempt(60.0) is not None) == found


def test_a_segment_without_stages_is_not_filled():
    stage = PatternStage.of(2, [((0, 2),)], [GROUP])
    segments = [Segment(0, 2, 0.0), Segment(4, 6, 0.0)]
    settings = SolverSettings()
    assert choose([SegmentStage(0, stage)], [GROUP], segments, settings) is None
    both = [SegmentStage(0, stage), SegmentStage(1, stage)]
    assert choose(both, [GROUP], segments, settings) == both


def test_pins_that_carry_the_target_alone_are_the_placement():
    search = PinnedSearch({"pin": (0, 2)}, [Segment(0, 2, 100.0)], [], Watch(20))
    assert search.attempt(100.0) == {"pin": (0, 2)}
    assert search.attempt(101.0) is None
