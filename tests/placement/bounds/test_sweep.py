"""The sweep over layers: on small random clusters it says what trying every placement says."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helix_kit.placement.bounds.sweep import UNITS, Held, LayerSweep, Prices, widest_speeds


def best_coverage(sizes, speeds, num_layers):
    """The largest target, by trying every range of every node: the least, over layers, of the T of the nodes there."""
    spans = [(s, e) for s in range(num_layers) for e in range(s + 1, num_layers + 1)]
    options = [[None, *(span for span in spans if of_group[span] > 0)] for of_group in speeds]
    best = 0.0
    for chosen in product(*(options[g] for g, size in enumerate(sizes) for _ in range(size))):
        held = np.zeros(num_layers)
        owners = [g for g, size in enumerate(sizes) for _ in range(size)]
        for g, span in zip(owners, chosen, strict=True):
            if span:
                held[span[0] : span[1]] += speeds[g][span]
        best = max(best, float(held.min()))
    return best


def draw_speeds(data, num_layers):
    """T of every range at random: longer ranges may be faster, and some do not fit."""
    speeds = np.zeros((num_layers + 1, num_layers + 1))
    for start in range(num_layers):
        for end in range(start + 1, num_layers + 1):
            speeds[start, end] = data.draw(st.integers(0, 12))
    return speeds


@settings(max_examples=60)
@given(st.data())
def test_it_finds_what_is_there_and_refutes_what_is_not(data):
    num_layers = data.draw(st.integers(1, 3))
    sizes = data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=2))
    speeds = [draw_speeds(data, num_layers) for _ in sizes]
    best = best_coverage(sizes, speeds, num_layers)
    assume(best > 0)
    widest = [widest_speeds(s) for s in speeds]
    assert best_coverage(sizes, widest, num_layers) == best  # a node may hold more than it is counted for
    found = LayerSweep(sizes, widest, best * (1 - 1e-9), []).run(100_000).found
    held = np.zeros(num_layers)
    for node in found:
        held[node.start : node.end] += widest[node.group][node.start, node.end]
    assert held.min() >= best * (1 - 1e-9)
    assert all(sum(node.group == g for node in found) <= size for g, size in enumerate(sizes))
    assert LayerSweep(sizes, widest, best * (1 + 1e-9), []).run(100_000).refuted


def test_prices_cut_off_what_they_prove_and_nothing_else():
    """Six nodes of one layer each, two in a layer: three layers are covered, four are not, whatever the order."""
    one_layer = np.diag(np.full(4, 10.0), 1)
    cover = np.ceil(np.arange(UNITS + 1) / (UNITS / 2))  # a node carries half of the target: one or two nodes
    prices = Prices(np.array([1.0]), np.ones(4), cover)
    with_prices = LayerSweep([6], [one_layer], 20.0, [prices]).run(1000)
    without = LayerSweep([6], [one_layer], 20.0, []).run(1000)
    assert with_prices.refuted and without.refuted
    assert with_prices.expansions == 1 < without.expansions
    three = LayerSweep([6], [one_layer[:4, :4]], 20.0, [Prices(np.array([1.0]), np.ones(3), cover)]).run(1000)
    assert three.found == tuple(Held(0, layer, layer + 1) for layer in (0, 0, 1, 1, 2, 2))


def test_a_search_that_is_cut_short_says_nothing():
    speeds = np.triu(np.full((5, 5), 10.0), 1)
    for answer in (
        LayerSweep([4], [speeds], 25.0, []).run(1),
        LayerSweep([4], [speeds], 25.0, []).run(99, lambda: True),
    ):
        assert not answer.refuted and answer.found is None


@pytest.mark.parametrize(("target", "reached"), [(11.0, True), (11.1, False)])
def test_ranges_need_not_end_together(target, reached):
    """A node of T 7 over all three layers; beside it, one holds two layers with T 4 and one the third with T 5."""
    wide, narrow = np.zeros((4, 4)), np.zeros((4, 4))
    wide[0, 3] = 7.0
    narrow[0, 2] = narrow[1, 3] = 4.0
    narrow[0, 1] = narrow[1, 2] = narrow[2, 3] = 5.0
    answer = LayerSweep([1, 2], [widest_speeds(wide), widest_speeds(narrow)], target, []).run(1000)
    assert bool(answer.found) == reached and answer.refuted != reached
