"""Compiled search steps: nodes take other layer ranges at random, and better placements are kept.

Two searches share their moves. `anneal_coverage` judges a placement by its layers alone: the nodes that hold a layer
should have target tokens/s together. A step takes about a microsecond. `anneal_flow` judges it by its exact maximum
flow, links and network cards included, and takes ten to a hundred times as long.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"
# Compiled code: numba infers the types.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from helix_kit.flow.dense import dense_flow

COMPILED = ("anneal_coverage", "anneal_flow")
"""Functions that `Annealing` calls."""


class Nodes(NamedTuple):
    """The nodes of a search, by number."""

    throughput: NDArray[np.float64]
    """Tokens/s by column, shape (nodes, columns): see `columns`."""
    largest: NDArray[np.int64]
    """The largest number of layers of each node."""
    free: NDArray[np.int64]
    """Numbers of the nodes that may move."""
    columns: NDArray[np.int64]
    """Column of `throughput` for a range [s, e), shape (L + 1, L + 1). Where layers are alike it is e - s."""


class Ranges(NamedTuple):
    """Layer ranges [start, end), one for each node."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def copy(self) -> Ranges:
        """The same ranges in arrays of their own."""
        return Ranges(self.starts.copy(), self.ends.copy())


class Schedule(NamedTuple):
    """How long and how hot a search is: the temperature falls evenly from `hot` to `cold`."""

    hot: float
    cold: float
    steps: int
    seed: int


@njit(cache=True)
def propose(nodes, now, num_layers, moved, new):
    """Draw a move: one or two nodes with other layer ranges. Returns how many nodes move, 0 for an impossible move.

    The numbers of the nodes go into `moved`, their ranges into `new`.
    """
    largest, free = nodes.largest, nodes.free
    starts, ends = now.starts, now.ends
    new_starts, new_ends = new.starts, new.ends
    i = free[np.random.randint(len(free))]
    j = free[np.random.randint(len(free))]
    moved[0], moved[1] = i, j
    count = 1
    draw = np.random.random()
    if draw < 0.25:  # any range
        size = 1 + np.random.randint(largest[i])
        new_starts[0] = np.random.randint(num_layers - size + 1)
        new_ends[0] = new_starts[0] + size
    elif draw < 0.5:  # a range that begins, and perhaps ends, where those of other nodes do
        start = ends[j] if np.random.random() < 0.7 else starts[j]
        start = 0 if start >= num_layers else start
        size = min(1 + np.random.randint(largest[i]), num_layers - start)
        if np.random.random() < 0.5:
            end = ends[free[np.random.randint(len(free))]]
            if start < end <= start + largest[i]:
                size = end - start
        new_starts[0] = start
        new_ends[0] = start + size
    elif draw < 0.65:  # one layer further, longer or shorter
        shift = 1 if np.random.random() < 0.5 else -1
        which = np.random.randint(3)
        new_starts[0] = starts[i] + (shift if which != 1 else 0)
        new_ends[0] = ends[i] + (shift if which != 0 else 0)
    elif draw < 0.85:  # the border between a node and one that follows it
        for _ in range(len(free)):
            if j != i and starts[j] == ends[i]:
                break
            j = free[np.random.randint(len(free))]
        if j == i or starts[j] != ends[i]:
            return 0
        shift = 1 + np.random.randint(2)
        if np.random.random() < 0.5:
            shift = -shift
        count = 2
        moved[1] = j
        new_starts[0], new_ends[0] = starts[i], ends[i] + shift
        new_starts[1], new_ends[1] = starts[j] + shift, ends[j]
    else:  # two nodes change places
        if j == i:
            return 0
        count = 2
        new_starts[0], new_ends[0] = starts[j], ends[j]
        new_starts[1], new_ends[1] = starts[i], ends[i]
    for at in range(count):
        size = new_ends[at] - new_starts[at]
        if new_starts[at] < 0 or new_ends[at] > num_layers or size < 1 or size > largest[moved[at]]:
            return 0
    return count


@njit(cache=True)
def cover(nodes, starts, ends, covered, target):
    """Tokens/s that each layer's nodes have together, each node counted up to the target; returns what is missing."""
    throughput, columns = nodes.throughput, nodes.columns
    covered[:] = 0.0
    for i in range(len(starts)):
        tokens = min(throughput[i, columns[starts[i], ends[i]]], target)
        for layer in range(starts[i], ends[i]):
            covered[layer] += tokens
    missing = 0.0
    for layer in range(len(covered)):
        missing += max(0.0, target - covered[layer])
    return missing


@njit(cache=True)
def anneal_coverage(nodes, now, best, num_layers, target, schedule):
    """Anneal what layers miss of the target; returns the least that was missing together, in tokens/s.

    Parameters
    ----------
    nodes
        `Nodes`.
    now, best
        `Ranges`: `now` is changed in place, and `best` gets the best ranges met.
    num_layers
        Layers of the model.
    target
        Tokens/s that every layer should have.
    schedule
        `Schedule`, temperatures in tokens/s.
    """
    np.random.seed(schedule.seed)
    throughput, columns, starts, ends = nodes.throughput, nodes.columns, now.starts, now.ends
    hot, cold, steps = schedule.hot, schedule.cold, schedule.steps
    covered = np.zeros(num_layers)
    energy = cover(nodes, starts, ends, covered, target)
    least = energy
    best.starts[:], best.ends[:] = starts, ends
    moved, new = np.zeros(2, np.int64), Ranges(np.zeros(2, np.int64), np.zeros(2, np.int64))
    new_starts, new_ends = new.starts, new.ends
    after = covered.copy()
    for step in range(steps):
        if energy <= 1e-9:
            break
        count = propose(nodes, now, num_layers, moved, new)
        if count == 0:
            continue
        low, high = num_layers, 0
        for at in range(count):
            node = moved[at]
            low = min(low, starts[node], new_starts[at])
            high = max(high, ends[node], new_ends[at])
        for layer in range(low, high):
            after[layer] = covered[layer]
        for at in range(count):
            node = moved[at]
            tokens = min(throughput[node, columns[starts[node], ends[node]]], target)
            for layer in range(starts[node], ends[node]):
                after[layer] -= tokens
        for at in range(count):
            tokens = min(throughput[moved[at], columns[new_starts[at], new_ends[at]]], target)
            for layer in range(new_starts[at], new_ends[at]):
                after[layer] += tokens
        change = 0.0
        for layer in range(low, high):
            change += max(0.0, target - after[layer]) - max(0.0, target - covered[layer])
        temperature = hot + (cold - hot) * step / steps
        if change <= 0 or np.random.random() < np.exp(-change / temperature):
            for layer in range(low, high):
                covered[layer] = after[layer]
            for at in range(count):
                starts[moved[at]] = new_starts[at]
                ends[moved[at]] = new_ends[at]
            energy += change
            if energy < least - 1e-9:
                least = energy
                best.starts[:], best.ends[:] = starts, ends
    return least


@njit(cache=True)
def fill_network(network, capacities, now, num_layers, partial_inference):
    """The flow network of a placement, by the rules of `build_flow_graph`, into a square matrix of capacities.

    Vertices are the nodes' entries, their exits, the source and the sink. Without partial inference a node takes only
    requests at its first layer.
    """
    starts, ends = now.starts, now.ends
    count = len(starts)
    source, sink = 2 * count, 2 * count + 1
    network[:, :] = 0
    for j in range(count):
        fed = False
        for i in range(count):
            if i != j and starts[j] <= ends[i] < ends[j] and (partial_inference or starts[j] == ends[i]):
                network[count + i, j] = capacities.links[i, j]
                fed = True
        into = capacities.card_of_token_ids if starts[j] == 0 and not fed else capacities.card
        out = capacities.card_of_token_ids if ends[j] == num_layers else capacities.card
        network[j, count + j] = min(capacities.throughput[j, capacities.columns[starts[j], ends[j]]], into, out)
        if starts[j] == 0:
            network[source, j] = capacities.from_coordinator[j]
        if ends[j] == num_layers:
            network[count + j, sink] = capacities.to_coordinator[j]


@njit(cache=True)
def anneal_flow(nodes, capacities, now, best, num_layers, partial_inference, target, schedule):
    """Anneal the maximum flow itself; returns the best flow met.

    Where flows are equal, layers that miss less of the target are better: a small share of what they miss counts.

    Parameters
    ----------
    nodes
        `Nodes`, throughput in the units of `capacities`.
    capacities
        `Capacities` of the nodes.
    now, best
        `Ranges`: `now` is changed in place, and `best` gets the best ranges met.
    num_layers
        Layers of the model.
    partial_inference
        Whether a request may enter a node's range after its first layer.
    target
        A flow at which the search ends.
    schedule
        `Schedule`, temperatures in the units of `capacities`.
    """
    np.random.seed(schedule.seed)
    starts, ends = now.starts, now.ends
    hot, cold, steps = schedule.hot, schedule.cold, schedule.steps
    count = len(starts)
    network = np.zeros((2 * count + 2, 2 * count + 2), np.int64)
    level, queue = np.zeros(2 * count + 2, np.int64), np.zeros(2 * count + 2, np.int64)
    at, path = np.zeros(2 * count + 2, np.int64), np.zeros(2 * count + 2, np.int64)
    covered = np.zeros(num_layers)
    moved, new = np.zeros(2, np.int64), Ranges(np.zeros(2, np.int64), np.zeros(2, np.int64))
    new_starts, new_ends = new.starts, new.ends
    old_starts, old_ends = np.zeros(2, np.int64), np.zeros(2, np.int64)
    fill_network(network, capacities, now, num_layers, partial_inference)
    flow = dense_flow(network, level, queue, at, path)
    energy = target - flow + 0.1 * cover(nodes, starts, ends, covered, target) / num_layers
    greatest = flow
    best.starts[:], best.ends[:] = starts, ends
    for step in range(steps):
        if greatest >= target:
            break
        moving = propose(nodes, now, num_layers, moved, new)
        if moving == 0:
            continue
        for k in range(moving):
            old_starts[k], old_ends[k] = starts[moved[k]], ends[moved[k]]
        for k in range(moving):
            starts[moved[k]], ends[moved[k]] = new_starts[k], new_ends[k]
        temperature = hot + (cold - hot) * step / steps
        allowed = energy - temperature * np.log(np.random.random() + 1e-300)
        # What the layers hold bounds the flow from above, and costs a fraction of it.
        missing = cover(nodes, starts, ends, covered, target)
        least = 0.0
        for layer in range(num_layers):
            least = max(least, target - covered[layer])
        after = least + 0.1 * missing / num_layers
        if after <= allowed:
            fill_network(network, capacities, now, num_layers, partial_inference)
            flow = dense_flow(network, level, queue, at, path)
            after = target - flow + 0.1 * missing / num_layers
            if after <= allowed:
                energy = after
                if flow > greatest:
                    greatest = flow
                    best.starts[:], best.ends[:] = starts, ends
                continue
        for k in range(moving):
            starts[moved[k]], ends[moved[k]] = old_starts[k], old_ends[k]
    return greatest


def compile_all() -> None:
    """Call every function of `COMPILED` once with the types that `Annealing` uses."""
    from helix_kit.flow.arrays import Capacities

    def ranges() -> Ranges:
        return Ranges(np.array([0, 1], np.int64), np.array([1, 2], np.int64))

    columns = np.ones((3, 3), np.int64)
    nodes = Nodes(np.ones((2, 3)), np.array([2, 2], np.int64), np.array([0, 1], np.int64), columns)
    schedule = Schedule(0.1, 0.1, 1, 0)
    anneal_coverage(nodes, ranges(), ranges(), 2, 2.0, schedule)
    ends = np.ones(2, np.int64)
    capacities = Capacities(np.ones((2, 3), np.int64), np.ones((2, 2), np.int64), ends, ends, 9, 9, columns)
    anneal_flow(nodes, capacities, ranges(), ranges(), 2, True, 2.0, schedule)
