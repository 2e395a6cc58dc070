"""Bars are packed into as few swimlanes as first-fit needs, and labels have room."""

from __future__ import annotations

import pytest

from helix_kit.plots.lanes import Sizes, arrange, label_size
from helix_kit.plots.machines import Machine


def machine(name: str, start: int, end: int, kind: str = "L4", region: str = "us") -> Machine:
    return Machine(name, (name,), kind, region, start, end, 1.0, 2.0, False)


@pytest.fixture
def sizes() -> Sizes:
    return Sizes(layer_x0=100.0, layer_width=10.0, right=900.0, bar_height=22.0, label_size=label_size(22.0))


def test_bars_share_a_swimlane_where_their_layers_do_not_overlap(sizes):
    machines = [machine("L4-0", 0, 20), machine("L4-1", 20, 40), machine("L4-2", 10, 30)]
    lanes = arrange(machines, ["L4"], ["us"], sizes, 64.0)
    y = {bar.machine.id: bar.y for bar in lanes.bars}
    assert y["L4-0"] == y["L4-1"] < y["L4-2"]
    assert lanes.kinds == (("L4 ×3", 0, y["L4-0"] + 11.0),)


def test_regions_and_kinds_come_in_the_given_order(sizes):
    machines = [machine("T4-0", 0, 20, "T4", "eu"), machine("L4-0", 0, 20, "L4", "eu"), machine("L4-1", 0, 20)]
    lanes = arrange(machines, ["L4", "T4"], ["us", "eu"], sizes, 64.0)
    assert [bar.machine.id for bar in lanes.bars] == ["L4-1", "L4-0", "T4-0"]
    assert [name for name, _, _ in lanes.regions] == ["us", "eu"]
    assert lanes.regions[0][2] <= lanes.regions[1][1]


def test_a_label_that_does_not_fit_stands_beside_its_bar_inside_the_picture(sizes):
    lanes = arrange([machine("alpha", 0, 2), machine("omega", 78, 80)], ["L4"], ["us"], sizes, 64.0)
    first, last = sorted(lanes.bars, key=lambda bar: bar.x)
    assert not first.label_inside and first.label_x > first.x + first.width
    assert not last.label_inside and last.label_x < last.x
