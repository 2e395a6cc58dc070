"""Stages: rates, widths, and nodes laid out one stage after another."""

import pytest

from helix_kit.placement.groups import Group
from helix_kit.placement.pattern.stages import PatternStage, lay_out, uniform_stages

L4 = Group("L4", "east", ("a", "b", "c", "d"), (50.0, 30.0))
T4 = Group("T4", "east", ("x", "y"), (40.0,))


def test_lanes_in_another_order_make_an_equal_stage():
    lanes = [((0, 2),), ((0, 1), (1, 1))]
    stage = PatternStage.of(2, lanes, [L4, T4])
    assert stage == PatternStage.of(2, lanes[::-1], [L4, T4])
    # The lane of an L4 and a T4 carries 40, as its T4 does; the L4 with two layers carries 30.
    assert (stage.rate, stage.uses, stage.depth) == (70.0, (2, 1), 2)


@pytest.mark.parametrize(
    ("rates", "flow", "level"),
    [
        ([40, 40, 40], 90, 30),
        ([10, 90, 20], 60, 30),
        ([100, 100], 20, 10),
        ([10, 20, 30], 60, 30),
        ([5, 5, 5, 50], 45, 30),
    ],
)
def test_width_of_a_stage_is_the_level_its_lanes_are_filled_to(rates, flow, level):
    """By hand: 10 and 20 are full, so the lane of 90 carries 30 of 60."""
    groups = [Group(f"kind{i}", "east", (f"n{i}",), (float(rate),)) for i, rate in enumerate(rates)]
    stage = PatternStage.of(1, [((g, 1),) for g in range(len(rates))], groups)
    assert stage.widest_share(flow) == pytest.approx(level / flow)


def test_uniform_stages_have_as_few_equal_nodes_as_carry_the_target():
    """90 tokens/s: two L4 with one layer, three with two; three T4 would be needed, and there are two."""
    stages = uniform_stages([L4, T4], 90.0)
    assert [(s.length, s.uses, s.rate) for s in stages] == [(1, (2, 0), 100.0), (2, (3, 0), 90.0)]


def test_stages_are_laid_out_in_a_row_and_cut_off_at_the_last_layer():
    groups = [L4, T4]
    first = PatternStage.of(2, [((0, 2),), ((1, 1), (0, 1))], groups)
    second = PatternStage.of(2, [((0, 1), (1, 1)), ((0, 2),)], groups)
    # The second stage begins at layer 2 and would end at 4: its T4 has no layer left and is not placed.
    assert lay_out([first, second], groups, num_layers=3) == {
        "a": (0, 2),
        "x": (0, 1),
        "b": (1, 2),
        "c": (2, 3),
        "d": (2, 3),
    }
