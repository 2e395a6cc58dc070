"""Compiled search steps that know the links between regions: each node has a layer range and a flow that it carries.

A placement is judged layer by layer, and border by border. What a layer's nodes carry together should be the target.
At the border before a layer, the nodes that end there pass on what they carry to the nodes that start there: as much
as possible within a region, and the rest over links between regions, each of which carries so much and no more. What
finds no way is lost. A step changes a few layers and borders, and takes less than a microsecond, while a maximum flow
of a hundred nodes takes a millisecond. Where nothing is missing and nothing lost, the placement carries the target.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"
# Compiled code: numba infers the types.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from helix_kit.placement.annealing.moves import Nodes, Ranges, Schedule, propose

COMPILED = ("anneal_crossings",)
"""Functions that `CrossingAnnealing` calls."""
REFIT_SHARE = 0.1
"""Share of the steps that change only what a node carries."""
FULL_SHARE = 0.5
"""Share of the moved nodes that carry all they can; the others carry what some layer of their range lacks."""
EXCESS = 0.3
"""Weight of what a layer's nodes carry above the target."""


class Network(NamedTuple):
    """Where the nodes are, and what a link carries."""

    region: NDArray[np.int64]
    """Number of each node's region."""
    link: NDArray[np.float64]
    """Tokens/s of a link between two nodes, by their regions, shape (regions, regions)."""


class Flows(NamedTuple):
    """What each node carries in the placement of now, and in the best one."""

    now: NDArray[np.float64]
    best: NDArray[np.float64]


class Borders(NamedTuple):
    """What each layer's nodes carry, and the nodes that end and start before each layer."""

    carried: NDArray[np.float64]
    """Tokens/s by layer."""
    enders: NDArray[np.int64]
    """Their numbers, shape (L + 1, nodes); the first `num_enders` of a row count."""
    num_enders: NDArray[np.int64]
    starters: NDArray[np.int64]
    num_starters: NDArray[np.int64]


class Room(NamedTuple):
    """Room for intermediate results, so that steps allocate nothing."""

    leaving: NDArray[np.float64]
    entering: NDArray[np.float64]
    sent: NDArray[np.float64]
    wanted: NDArray[np.float64]
    served: NDArray[np.int64]


@njit(cache=True)
def put(borders, node, start, end, flow):
    """Add a node to its layers and borders."""
    for layer in range(start, end):
        borders.carried[layer] += flow
    borders.starters[start, borders.num_starters[start]] = node
    borders.num_starters[start] += 1
    borders.enders[end, borders.num_enders[end]] = node
    borders.num_enders[end] += 1


@njit(cache=True)
def leave_out(members, count, at, node):
    """Take a node out of a border's row."""
    last = count[at] - 1
    for k in range(last + 1):
        if members[at, k] == node:
            members[at, k] = members[at, last]
            break
    count[at] = last


@njit(cache=True)
def take(borders, node, start, end, flow):
    """Take a node away from its layers and borders."""
    for layer in range(start, end):
        borders.carried[layer] -= flow
    leave_out(borders.starters, borders.num_starters, start, node)
    leave_out(borders.enders, borders.num_enders, end, node)


@njit(cache=True)
def spread(members, count, flows, region, amounts, shares):
    """Divide each region's amount among its nodes, all to one level or to what they carry where that is less."""
    for r in range(len(amounts)):
        number = 0
        for k in range(count):
            if region[members[k]] == r:
                number += 1
        level = amounts[r] / max(number, 1)
        for _ in range(number):
            below, above = 0.0, 0
            for k in range(count):
                if region[members[k]] == r:
                    if flows[members[k]] < level:
                        below += flows[members[k]]
                    else:
                        above += 1
            if above == 0 or (amounts[r] - below) / above <= level * (1 + 1e-12):
                break
            level = (amounts[r] - below) / above
        for k in range(count):
            if region[members[k]] == r:
                shares[k] = min(flows[members[k]], level)


@njit(cache=True)
def lost_at(borders, layer, flows, network, room):
    """Tokens/s that nodes which end before a layer cannot pass on, though nodes which start there could take them."""
    num_enders, num_starters = borders.num_enders[layer], borders.num_starters[layer]
    if num_enders == 0 or num_starters == 0:
        return 0.0
    enders, starters = borders.enders[layer], borders.starters[layer]
    region, link = network.region, network.link
    leaving, entering = room.leaving, room.entering
    leaving[:], entering[:] = 0.0, 0.0
    for k in range(num_enders):
        leaving[region[enders[k]]] += flows[enders[k]]
    for k in range(num_starters):
        entering[region[starters[k]]] += flows[starters[k]]
    could = min(leaving.sum(), entering.sum())
    passed = 0.0
    for r in range(len(leaving)):
        stays = min(leaving[r], entering[r], link[r, r] * num_enders * num_starters)
        leaving[r] -= stays
        entering[r] -= stays
        passed += stays
    if passed >= could - 1e-9:
        return 0.0
    # Even shares cross most easily. Each sender fills first the nodes that want most: with equal links that is best.
    spread(enders, num_enders, flows, region, leaving, room.sent)
    spread(starters, num_starters, flows, region, entering, room.wanted)
    sent, wanted, served = room.sent, room.wanted, room.served
    for k in range(num_starters):
        served[k] = -1
    for k in range(num_enders):
        while sent[k] > 1e-9:
            first = -1
            for j in range(num_starters):
                if served[j] != k and wanted[j] > 1e-9 and (first < 0 or wanted[j] > wanted[first]):
                    first = j
            if first < 0:
                break
            served[first] = k
            tokens = min(sent[k], wanted[first], link[region[enders[k]], region[starters[first]]])
            sent[k] -= tokens
            wanted[first] -= tokens
            passed += tokens
    return max(0.0, could - passed)


@njit(cache=True)
def off_target(carried, target):
    """What a layer misses, or a share of what it has too much."""
    return target - carried if carried < target else EXCESS * (carried - target)


@njit(cache=True)
def anneal_crossings(nodes, network, now, best, flows, num_layers, target, schedule):
    """Anneal what layers miss and borders lose; returns the least that was missed and lost together, in tokens/s.

    Parameters
    ----------
    nodes
        `Nodes`.
    network
        `Network` of the same nodes.
    now, best
        `Ranges`: `now` is changed in place, and `best` gets the best ranges met.
    flows
        `Flows`, changed likewise.
    num_layers
        Layers of the model.
    target
        Tokens/s that every layer should carry.
    schedule
        `Schedule`, temperatures in tokens/s.
    """
    np.random.seed(schedule.seed)
    throughput, columns, free = nodes.throughput, nodes.columns, nodes.free
    starts, ends, flow = now.starts, now.ends, flows.now
    count, regions = len(starts), len(network.link)
    rows = np.zeros((num_layers + 1, count), np.int64)
    borders = Borders(
        np.zeros(num_layers), rows, np.zeros(num_layers + 1, np.int64), rows.copy(), np.zeros(num_layers + 1, np.int64)
    )
    room = Room(np.zeros(regions), np.zeros(regions), np.zeros(count), np.zeros(count), np.zeros(count, np.int64))
    for i in range(count):
        put(borders, i, starts[i], ends[i], flow[i])
    lost = np.zeros(num_layers + 1)
    energy = 0.0
    for layer in range(num_layers):
        energy += off_target(borders.carried[layer], target)
        if layer > 0:
            lost[layer] = lost_at(borders, layer, flow, network, room)
            energy += lost[layer]
    least = energy
    best.starts[:], best.ends[:], flows.best[:] = starts, ends, flow
    moved, new = np.zeros(2, np.int64), Ranges(np.zeros(2, np.int64), np.zeros(2, np.int64))
    old, old_flow = Ranges(np.zeros(2, np.int64), np.zeros(2, np.int64)), np.zeros(2)
    touched, after_at = np.zeros(8, np.int64), np.zeros(8)
    for step in range(schedule.steps):
        if least <= 1e-6 * target:
            break
        if np.random.random() < REFIT_SHARE:
            moving = 1
            moved[0] = free[np.random.randint(len(free))]
            new.starts[0], new.ends[0] = starts[moved[0]], ends[moved[0]]
        else:
            moving = propose(nodes, now, num_layers, moved, new)
        if moving == 0:
            continue
        low, high, num_touched = num_layers, 0, 0
        for k in range(moving):
            node = moved[k]
            old.starts[k], old.ends[k], old_flow[k] = starts[node], ends[node], flow[node]
            low, high = min(low, starts[node], new.starts[k]), max(high, ends[node], new.ends[k])
            for border in (starts[node], ends[node], new.starts[k], new.ends[k]):
                is_new = 0 < border < num_layers
                for at in range(num_touched):
                    is_new = is_new and touched[at] != border
                if is_new:
                    touched[num_touched] = border
                    num_touched += 1
        before, after = 0.0, 0.0
        for layer in range(low, high):
            before += off_target(borders.carried[layer], target)
        for at in range(num_touched):
            before += lost[touched[at]]
        for k in range(moving):
            take(borders, moved[k], old.starts[k], old.ends[k], old_flow[k])
        for k in range(moving):
            node, start, end = moved[k], new.starts[k], new.ends[k]
            flow[node] = min(target, throughput[node, columns[start, end]])
            if np.random.random() >= FULL_SHARE:
                lacks = target - borders.carried[start + np.random.randint(end - start)]
                flow[node] = min(flow[node], max(0.0, lacks))
            put(borders, node, start, end, flow[node])
        for layer in range(low, high):
            after += off_target(borders.carried[layer], target)
        temperature = schedule.hot + (schedule.cold - schedule.hot) * step / schedule.steps
        allowed = before - temperature * np.log(np.random.random() + 1e-300)
        # Layers are counted first: what borders lose takes longer to find.
        if after <= allowed:
            for at in range(num_touched):
                after_at[at] = lost_at(borders, touched[at], flow, network, room)
                after += after_at[at]
        if after <= allowed:
            for at in range(num_touched):
                lost[touched[at]] = after_at[at]
            for k in range(moving):
                starts[moved[k]], ends[moved[k]] = new.starts[k], new.ends[k]
            energy += after - before
            if energy < least - 1e-9 * target:
                least = energy
                best.starts[:], best.ends[:], flows.best[:] = starts, ends, flow
            continue
        for k in range(moving):
            take(borders, moved[k], new.starts[k], new.ends[k], flow[moved[k]])
        for k in range(moving):
            flow[moved[k]] = old_flow[k]
            put(borders, moved[k], old.starts[k], old.ends[k], old_flow[k])
    return least


def compile_all() -> None:
    """Call every function of `COMPILED` once with the types that `CrossingAnnealing` uses."""

    def ranges() -> Ranges:
        return Ranges(np.array([0, 1], np.int64), np.array([1, 2], np.int64))

    nodes = Nodes(np.ones((2, 3)), np.array([2, 2], np.int64), np.array([0, 1], np.int64), np.ones((3, 3), np.int64))
    network = Network(np.array([0, 1], np.int64), np.ones((2, 2)))
    anneal_crossings(
        nodes, network, ranges(), ranges(), Flows(np.ones(2), np.ones(2)), 2, 2.0, Schedule(0.1, 0.1, 1, 0)
    )
