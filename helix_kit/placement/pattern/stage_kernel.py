"""Compiled steps of choosing stages: costs of covers, and listing of lanes and of sets of lanes that carry a flow."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"
# Compiled code: numba infers the types.

from __future__ import annotations

import numpy as np
from numba import njit

COMPILED = ("cover_costs", "lane_rates", "list_covers")
"""Functions that `pricing` and `whole_stages` call."""
MAX_IN_STAGE = 48
"""Lanes of a stage at most."""


@njit(cache=True)
def cover_costs(lane_cost, weights, units):
    """table[l, f]: the least cost of lanes of length l whose weights add up to f units or more.

    `lane_cost[j, l]` is the cost of lane j of weight `weights[j]` (units) at length l, infinite where there is none.
    """
    lengths = lane_cost.shape[1]
    table = np.full((lengths, units + 1), np.inf)
    sums = np.zeros(units + 1)
    for length in range(lengths):
        row = table[length]
        row[0] = 0.0
        for j in range(len(weights)):
            cost = lane_cost[j, length]
            if cost == np.inf:
                continue
            # 1, 2, 4, ... copies in turn give every number of copies.
            copies, shift = 1, 0
            while shift < units:
                shift = min(weights[j] * copies, units)
                added = copies * cost
                if added >= row[units]:
                    break  # row rises with f, so nothing becomes cheaper
                for f in range(units + 1 - shift):
                    sums[f] = row[f] + added
                for f in range(units + 1 - shift):
                    row[f + shift] = min(row[f + shift], sums[f])
                for f in range(1, shift):
                    row[f] = min(row[f], added)
                copies *= 2
    return table


@njit(cache=True)
def lane_rates(throughput, parents, last, max_length):
    """rate[s, l]: the most tokens/s of a lane of l layers that has the nodes of set s, and the layers of its last node.

    Set s has the nodes of set `parents[s]`, which stands before it, and one of group `last[s]`; without a parent (-1)
    that one alone. `throughput[g, k - 1]` is T_g(k) in tokens/s. The rate is 0 where there is no such lane.
    """
    rate, layers = np.zeros((len(last), max_length + 1)), np.zeros((len(last), max_length + 1), np.int64)
    most = throughput.shape[1]
    for s in range(len(last)):
        alone = parents[s] < 0
        for length in range(1, max_length + 1):
            for k in range(length if alone else 1, min(most, length) + 1):
                carried = throughput[last[s], k - 1]
                if not alone:
                    carried = min(carried, rate[parents[s], length - k])
                if carried > rate[s, length]:
                    rate[s, length], layers[s, length] = carried, k
    return rate, layers


@njit(cache=True)
def list_covers(cost, rate, uses, supply, target, limit, most, max_steps):
    """Sets of lanes that carry `target` together at a cost of at most `limit`: the `most` cheapest that are found.

    Lanes stand in rising order of cost / rate. `uses[j, g]` are the nodes that lane j takes of group g, and `supply[g]`
    those that there are. The search is depth-first; a set is left once its cost, and for what it lacks the least cost
    of the lanes that follow, are above the limit, or above the dearest of `most` sets found. Returns (costs, numbers of
    lanes, lanes), in no order.
    """
    lanes = len(cost)
    found_cost, found_count = np.zeros(most), np.zeros(most, np.int64)
    found = np.zeros((most, MAX_IN_STAGE), np.int64)
    chosen, left = np.zeros(MAX_IN_STAGE, np.int64), supply.copy()
    number, depth, start, spent, missing = 0, 0, 0, 0.0, target
    for _ in range(max_steps):
        is_whole = missing <= 1e-9 * target
        if is_whole:
            slowest = np.inf
            for at in range(depth):
                slowest = min(slowest, rate[chosen[at]])
            if missing + slowest > 1e-9 * target and spent <= limit:  # no lane is one too many
                place = number
                if number == most:
                    place = np.argmax(found_cost)
                else:
                    number += 1
                found_cost[place], found_count[place] = spent, depth
                found[place, :depth] = chosen[:depth]
                if number == most:
                    limit = min(limit, found_cost.max())
        elif start < lanes and depth < MAX_IN_STAGE and spent + missing * cost[start] / rate[start] <= limit:
            fits = True
            for g in range(len(left)):
                if uses[start, g] > left[g]:
                    fits = False
                    break
            if fits:
                for g in range(len(left)):
                    left[g] -= uses[start, g]
                chosen[depth] = start
                spent += cost[start]
                missing -= rate[start]
                depth += 1
            else:
                start += 1
            continue
        if depth == 0:
            break
        depth -= 1
        last = chosen[depth]
        for g in range(len(left)):
            left[g] += uses[last, g]
        spent -= cost[last]
        missing += rate[last]
        start = last + 1
    return found_cost[:number], found_count[:number], found[:number]


def compile_all() -> None:
    """Call every function of `COMPILED` once with the types that are used."""
    cover_costs(np.ones((1, 1)), np.ones(1, np.int64), 1)
    one, none = np.ones((1, 1)), np.zeros(1, np.int64)
    lane_rates(one, none - 1, none, 1)
    list_covers(one[0], one[0], none[:, None] + 1, none + 1, 1.0, 2.0, 1, 1)
