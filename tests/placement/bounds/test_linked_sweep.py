"""The compiled search over placements goes on where it stopped, and prices cut off nothing that carries the target."""

import numpy as np
import pytest

from helix_kit.placement.bounds.linked_sweep import FOUND, OPEN, REFUTED, Machines, PriceTables, begin, walk_on

NO_PRICES = PriceTables(np.zeros((0, 1)), np.zeros((0, 9)), np.zeros((0, 9)))


def chain_of(count, num_layers, speed, link):
    """Machines of one class: a machine with k layers carries speed // k, a link what it says."""
    layers = np.arange(num_layers + 1)
    lengths = layers[None, :] - layers[:, None]
    speeds = np.where(lengths > 0, speed // np.maximum(lengths, 1), 0)[None]
    fastest = np.maximum.accumulate(speeds.max(axis=2)[:, ::-1], axis=1)[:, ::-1].copy()
    wide = np.full(count, 10**6)
    links = np.full((count, count), link)
    return Machines(np.array([count]), np.array([0]), speeds, fastest, links, wide, wide)


def answer_in_chunks(machines, target, max_states, prices=NO_PRICES, partial_inference=True):
    walk, states = begin(machines), 0
    while True:
        answer, looked_at = walk_on(machines, prices, walk, target, partial_inference, max_states)
        states += looked_at
        if answer != OPEN:
            ranges = [(int(walk.starts[i]), int(walk.ends[i])) for i in range(max(0, walk.depth[0]))]
            return answer, ranges, states


@pytest.mark.parametrize("max_states", [1, 7, 10**6])
def test_it_goes_on_where_it_stopped(max_states):
    machines = chain_of(3, 8, speed=120, link=10**6)
    whole = answer_in_chunks(machines, 40, 10**6)
    assert answer_in_chunks(machines, 40, max_states) == whole
    answer, ranges, _ = whole
    assert answer == FOUND
    held = [sum(120 // (e - s) for s, e in ranges if s <= layer < e) for layer in range(8)]
    assert min(held) >= 40
    assert answer_in_chunks(machines, 46, max_states)[0] == REFUTED


def test_a_thin_link_is_no_way_for_more_than_it_carries():
    """Two machines of four layers each in a row carry 30, and as much as their link. Whole replicas carry 15 each."""
    for link, most in ((10**6, 30), (12, 30), (0, 30)):
        machines = chain_of(2, 8, speed=120, link=link)
        assert answer_in_chunks(machines, most, 10**6)[0] == FOUND
        assert answer_in_chunks(machines, most + 1, 10**6)[0] == REFUTED
    # Machines that hold seven layers of eight at most have to be linked.
    narrow = chain_of(2, 8, speed=120, link=12)
    narrow.speeds[:, 0, 8] = 0
    assert answer_in_chunks(narrow, 12, 10**6)[:2] == (FOUND, [(0, 7), (7, 8)])
    assert answer_in_chunks(narrow, 13, 10**6)[0] == REFUTED


def test_a_range_is_entered_part_way_only_where_that_is_allowed():
    """Five layers fit on no machine: [0, 3) and [2, 5) overlap in layer 2."""
    machines = chain_of(2, 5, speed=120, link=10**6)
    machines.speeds[:] = 0
    machines.speeds[0, 0, 3] = machines.speeds[0, 2, 5] = 40
    machines.fastest[:] = 40
    assert answer_in_chunks(machines, 40, 10**6)[0] == REFUTED  # a machine starts where another one ends
    machines.speeds[0, 3, 5] = 40
    assert answer_in_chunks(machines, 40, 10**6)[0] == FOUND
    assert answer_in_chunks(machines, 40, 10**6, partial_inference=False)[0] == FOUND


def test_prices_cut_off_what_they_prove_and_nothing_else():
    """A machine of price 1 holds k layers at a speed of 120 / k: the target of 40 in a layer costs 1 / 3 or more."""
    machines = chain_of(4, 12, speed=120, link=10**6)
    units = np.arange(8193)
    prices = PriceTables(np.ones((1, 1)), np.arange(13.0)[None], np.maximum(units - 1, 0)[None] / (3 * 8192))
    with_prices, without = (answer_in_chunks(machines, 41, 10**6, p) for p in (prices, NO_PRICES))
    assert with_prices[0] == without[0] == REFUTED
    assert with_prices[2] < without[2]
    assert answer_in_chunks(machines, 40, 10**6, prices)[0] == FOUND
