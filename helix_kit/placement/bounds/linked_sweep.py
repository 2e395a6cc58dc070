"""Compiled search over placements whose flow over all links reaches a target: the questions of bound B7.

The search walks from one end of a layer range to the next. There it tries every set of further machines that start in
that layer, each with every length. Five rules keep it small, and none of them loses the last placement that is left:

- A machine carries what the best range around its own does, so a shorter range is never slower. Of the placements that
  carry the target, take one with the fewest layers in all, and look only at links that its flow uses. Then a machine
  starts in layer 0, or where one that feeds it ends. It ends with the model, or where one that it feeds starts, or one
  layer after one that feeds it. So machines start at ends of ranges only, and where a range ends but none starts, the
  end before it lies one layer back.
- The machines of every layer carry the target together.
- What the layers to come still lack costs no more than the machines that are left, at any prices (see `sweep`).
- A machine that is left is taken to follow and to precede every other one that it may still follow and precede, at its
  greatest speed. The flow over this network reaches the target too.
- A state that leads to what another one led to is left (see `linked_memory`).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"
# Compiled code: numba infers the types.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from helix_kit.flow.dense import dense_flow
from helix_kit.placement.bounds.linked_memory import Memory, is_met, nothing_met, remember, state_hashes

COMPILED = ("walk_on",)
"""Functions that `linked` calls."""
REFUTED, FOUND, OPEN = 0, 1, 2
"""What `walk_on` answers."""
TOLERANCE = 1e-7
"""By so much the prices of what is needed may be above those of the machines, in layers."""
MAX_GOING_ON = 4
"""States with more machines that go on are not remembered: each set of these takes a flow."""
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Machines(NamedTuple):
    """Machines by class: those of a class may be exchanged, and have numbers in a row. Capacities are in units."""

    sizes: Integers
    """Machines of each class."""
    first: Integers
    """Number of the first machine of each class."""
    speeds: Integers
    """What a machine carries with the layers [s, e), its network card included; shape (classes, L + 1, L + 1)."""
    fastest: Integers
    """The most that a machine carries with a range that starts in layer s or later, shape (classes, L + 1)."""
    links: Integers
    """From each machine to each, by number."""
    from_coordinator: Integers
    to_coordinator: Integers


class PriceTables(NamedTuple):
    """Several prices of a machine of each class, and what layers cost at them."""

    of_class: Floats
    """Shape (prices, classes)."""
    layers: Floats
    """Weight of the layers before layer l together, shape (prices, L + 1)."""
    cover: Floats
    """Least price of machines that carry a share f / units of the target, in a layer of weight 1; f = 0..units."""


class Walk(NamedTuple):
    """Where the search stands: the machines placed, and the one that is tried next. Arrays, changed in place."""

    depth: Integers
    """How many machines are placed, shape (1,). -1: nothing is left to try."""
    starts: Integers
    classes: Integers
    ends: Integers
    """Ranges [start, end) and classes of the placed machines, in order of their starts; then of the one tried next."""
    left: Integers
    """Machines of each class that are not placed."""
    memory: Memory
    """States met."""


def begin(machines: Machines) -> Walk:
    """A walk at its beginning."""
    size = len(machines.links) + 1
    starts, classes, ends = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    ends[0] = machines.speeds.shape[1]
    return Walk(np.zeros(1, np.int64), starts, classes, ends, machines.sizes.copy(), nothing_met())


@njit(cache=True)
def is_affordable(machines, prices, walk, target):
    """Whether what layers lack from this one on costs no more than the machines left, the tried one being placed."""
    count = walk.depth[0] + 1
    starts, classes, ends = walk.starts, walk.classes, walk.ends
    num_layers, units = machines.speeds.shape[1] - 1, prices.cover.shape[1] - 1
    for p in range(len(prices.cover)):
        budget = TOLERANCE - prices.of_class[p, classes[count - 1]]
        for c in range(len(walk.left)):
            budget += prices.of_class[p, c] * walk.left[c]
        layer = starts[count - 1]
        while layer < num_layers and budget >= 0.0:
            carried, following = 0, num_layers
            for i in range(count):
                if ends[i] > layer:
                    carried += machines.speeds[classes[i], starts[i], ends[i]]
                    following = min(following, ends[i])
            weight = prices.layers[p, following] - prices.layers[p, layer]
            if carried < target and weight > 0.0:
                budget -= weight * prices.cover[p, int(np.ceil((target - carried) / target * units - 1e-6))]
            layer = following
        if budget < 0.0:
            return False
    return True


@njit(cache=True)
def fill_network(machines, walk, layer, following, partial_inference):
    """The network of the placed machines, and of the classes of those left if any may still start.

    `layer` is where the last of the placed machines may start and `following` the next end of a range. Vertices are the
    entries, the exits, the source and the sink. With no machine left it is the network of `build_flow_graph`.
    """
    placed, starts, ends, left = walk.depth[0], walk.starts, walk.ends, walk.left
    num_layers, links = machines.speeds.shape[1] - 1, machines.links
    number, slots = np.empty(placed + len(left), np.int64), placed
    copies, class_of = np.ones(placed + len(left), np.int64), np.empty(placed + len(left), np.int64)
    used = np.zeros(len(left), np.int64)
    for i in range(placed):
        class_of[i] = walk.classes[i]
        number[i] = machines.first[class_of[i]] + used[class_of[i]]
        used[class_of[i]] += 1
    for c in range(len(left)):
        if left[c] > 0 and following < num_layers:
            class_of[slots], copies[slots] = c, left[c]
            number[slots] = machines.first[c] + machines.sizes[c] - 1
            slots += 1
    source, sink = 2 * slots, 2 * slots + 1
    network = np.zeros((2 * slots + 2, 2 * slots + 2), np.int64)
    for i in range(slots):
        c, here = class_of[i], number[i]
        if i < placed:
            network[i, slots + i] = machines.speeds[c, starts[i], ends[i]]
            if starts[i] == 0:
                network[source, i] = machines.from_coordinator[here]
            if ends[i] == num_layers:
                network[slots + i, sink] = machines.to_coordinator[here]
        else:
            network[i, slots + i] = copies[i] * machines.fastest[c, following]
            network[slots + i, sink] = copies[i] * machines.to_coordinator[here]
        for j in range(slots):
            if i == j:
                follows = False
            elif i < placed and j < placed:
                follows = starts[j] == ends[i] or (partial_inference and starts[j] < ends[i] < ends[j])
            elif i < placed:
                follows = layer < ends[i] < num_layers
            elif j < placed:
                follows = partial_inference and ends[j] > following + 1
            else:
                follows = True
            if follows:
                network[slots + i, j] = copies[i] * copies[j] * links[here, number[j]]
    return network


@njit(cache=True)
def close(machines, walk, target, partial_inference):
    """No further machine starts in this layer: the next one where some may; L for a placement; -1 where there is none.

    A placement carries the target with the machines placed.
    """
    placed, starts, ends = walk.depth[0], walk.starts, walk.ends
    layer, num_layers = starts[placed], machines.speeds.shape[1] - 1
    carried, following = 0, num_layers
    starting, may_pass, are_short = False, False, True
    for i in range(placed):
        if ends[i] > layer:
            carried += machines.speeds[walk.classes[i], starts[i], ends[i]]
            following = min(following, ends[i])
        starting = starting or starts[i] == layer
        may_pass = may_pass or ends[i] == layer - 1
        are_short = are_short and (ends[i] != layer or starts[i] == layer - 1)
    if carried < target:
        return -1
    if not starting and not (partial_inference and (may_pass or are_short)):
        return -1
    network = fill_network(machines, walk, layer, following, partial_inference)
    room = np.empty((4, len(network)), np.int64)
    return following if dense_flow(network, room[0], room[1], room[2], room[3]) >= target else -1


@njit(cache=True)
def is_free(machines, walk, target, partial_inference):
    """Whether requests get to the machines that go on in every way that their speeds allow, up to the target.

    By the theorem on polymatroids of flows that is so if each set of them gets as much as it carries, or the target.
    """
    placed, layer = walk.depth[0], walk.starts[walk.depth[0]]
    going_on, count = np.empty(placed, np.int64), 0
    base = fill_network(machines, walk, layer, machines.speeds.shape[1] - 1, partial_inference)
    sink = len(base) - 1
    base[:, sink] = 0
    for i in range(placed):
        if walk.ends[i] > layer:
            base[placed + i, :] = 0
            going_on[count] = i
            count += 1
    if count > MAX_GOING_ON:
        return False
    room = np.empty((4, len(base)), np.int64)
    for chosen in range(1, 1 << count):
        network, carried = base.copy(), 0
        for at in range(count):
            if (chosen >> at) & 1:
                i = going_on[at]
                network[placed + i, sink] = base[i, placed + i]
                carried += base[i, placed + i]
        if dense_flow(network, room[0], room[1], room[2], room[3]) < min(carried, target):
            return False
    return True


@njit(cache=True)
def is_new(machines, walk, target, partial_inference, following):
    """Whether a state was not met before. It is remembered where it may be."""
    one, two = state_hashes(machines, walk, following)
    if is_met(walk.memory, one, two):
        return False
    if is_free(machines, walk, target, partial_inference):
        remember(walk.memory, one, two)
    return True


@njit(cache=True)
def walk_on(machines, prices, walk, target, partial_inference, max_states):
    """Search for a placement that carries `target` units; returns the answer, and how many states were looked at.

    Parameters
    ----------
    machines, prices
        `Machines` and `PriceTables`.
    walk
        `Walk`: the search goes on from there, and stands there afterwards. Where a placement is found it holds it.
    target
        Units of flow.
    partial_inference
        Whether a request may enter a machine's range after its first layer.
    max_states
        The search is left `OPEN` after so many states.
    """
    starts, classes, ends, left, depth = walk.starts, walk.classes, walk.ends, walk.left, walk.depth
    num_layers, states = machines.speeds.shape[1] - 1, 0
    while depth[0] >= 0:
        if states >= max_states:
            return OPEN, states
        at = depth[0]
        is_placed = False
        while classes[at] < len(left) and not is_placed:
            if left[classes[at]] == 0 or ends[at] <= starts[at] + 1:
                classes[at] += 1
                ends[at] = num_layers + 1
                continue
            ends[at] -= 1
            if machines.speeds[classes[at], starts[at], ends[at]] > 0:
                states += 1
                is_placed = is_affordable(machines, prices, walk, target)
        if is_placed:
            # Of a class, the machines that start in a layer are placed in the order of their ends, the last one first.
            left[classes[at]] -= 1
            starts[at + 1], classes[at + 1], ends[at + 1] = starts[at], classes[at], ends[at] + 1
            depth[0] = at + 1
            continue
        states += 1
        following = close(machines, walk, target, partial_inference)
        if following == num_layers:
            return FOUND, states
        if following > 0 and is_new(machines, walk, target, partial_inference, following):
            starts[at], classes[at], ends[at] = following, 0, num_layers + 1
        else:
            depth[0] = at - 1
            if at > 0:
                left[classes[at - 1]] += 1
    return REFUTED, states


def compile_all() -> None:
    """Call every function of `COMPILED` once with the types that `linked` uses."""
    ones = np.ones(1, np.int64)
    machines = Machines(ones, 0 * ones, np.ones((1, 2, 2), np.int64), np.ones((1, 2), np.int64), ones[None], ones, ones)
    prices = PriceTables(np.ones((1, 1)), np.zeros((1, 2)), np.zeros((1, 9)))
    walk_on(machines, prices, begin(machines), 1, True, 9)
