"""Bound B1 by hand: what each node adds, its throughput cut down to the flow."""

import pytest

from helix_kit.placement.bounds import spread_bound
from helix_kit.placement.groups import Group


def group(kind, size, *table):
    return Group(kind, "r", tuple(f"{kind}{i}" for i in range(size)), tuple(map(float, table)))


@pytest.mark.parametrize(
    ("groups", "num_layers", "bound"),
    [
        ([group("a", 2, 10, 6)], 3, 8.0),  # each adds 12 to three layers of F
        ([group("fast", 1, 100), group("slow", 1, 4, 4)], 3, 4.0),  # one layer of F, and 8 for the other two
        ([group("a", 3, 10)], 2, 15.0),
        ([group("a", 1, 0)], 1, 0.0),
    ],
)
def test_by_hand(groups, num_layers, bound):
    assert spread_bound(groups, num_layers) == pytest.approx(bound)
