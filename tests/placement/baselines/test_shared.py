"""Even sizes, nodes in a row, and the range that is served worst."""

import pytest

from helix_kit.placement.baselines.shared import even_sizes, in_a_row, least_served_range


@pytest.mark.parametrize(("total", "count", "sizes"), [(10, 3, [3, 3, 4]), (4, 4, [1, 1, 1, 1]), (11, 4, [2, 3, 3, 3])])
def test_even_sizes(total, count, sizes):
    assert even_sizes(total, count) == sizes


def test_nodes_in_a_row():
    assert in_a_row(["a", "b"], [3, 2]) == {"a": (0, 3), "b": (3, 5)}


def test_least_served_range_looks_at_its_worst_layer_first():
    assert least_served_range([5.0, 5.0, 1.0, 9.0, 2.0, 2.0], 2) == (1, 3)  # 1 and 5 before 2 and 2
    assert least_served_range([3.0, 3.0, 3.0], 2) == (0, 2)
