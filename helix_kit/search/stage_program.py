"""Placements of the least round trip for a given number of requests in flight: the N/R program.

By Little's law N requests in flight with a round trip of R seconds serve X = N / R. A block here is a number of layers
that a few nodes of one region hold side by side. For N requests in flight only blocks whose KV caches admit N requests
are allowed. A small integer program chooses blocks that hold all layers and have the least round trip together; it is
solved for each N of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations
from typing import NamedTuple

import numpy as np
import pyomo.environ as pyo

from helix_kit.flow import Placement
from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import Slot, assign_nodes, chosen_columns, define_node_supply_constraints
from helix_kit.placement.watch import Watch
from helix_kit.search.predictor import (
    BLOCKING,
    DECODE_STUCK,
    DECODE_WORK,
    HOP_OVERHEAD_S,
    KV_MEAN_SHARE,
    KV_WORST_SHARE,
    PREFILL_WORK,
    Predictor,
)

MAX_REPLICAS, MAX_REPLICAS_OF_MANY_GROUPS, MANY_GROUPS = 6, 4, 5
"""Nodes in a block: up to six, and up to four in a region of five groups or more, where there are many combinations."""
MAX_BLOCKS = 4000
MIP_GAP = 0.005
SOLVE_LIMIT_S = 3.0
CAUTION = 4.0
"""Default weight of waiting behind prefills. The program counts the waiting of each block alone, and blocks in a row
also make each other wait; of 1, 4 and 12, the weight 4 led to the best plan most often."""
MAX_PROGRAMS = 24
"""Different choices of blocks that are returned at most."""
MAX_ORDERS = 6
HALF_BLOCKING = DECODE_STUCK * BLOCKING / 2
"""Weight of the second moment: the limit of `Predictor`'s waiting term for light load."""
FIRST_ROUND_TRIP_S = 1.5
"""Round trip that the first of two solves assumes; the second uses the result of the first."""


class Solving(NamedTuple):
    """How programs are solved: the solver, its seed, and the clock that ends the work."""

    solver: str
    seed: int
    watch: Watch


@dataclass(frozen=True)
class Block:
    """`length` layers held by `counts[g]` nodes of each group g side by side."""

    length: int
    counts: tuple[int, ...]
    region: str
    in_flight: float
    """Requests that the KV caches admit at once."""
    prefill_s: float
    """Mean seconds of a prefill, with sending its activations on."""
    decode_s: float
    """Mean seconds of a decode step."""
    second_moment: float
    """Sum over nodes of (share of the requests x prefill seconds beyond a decode step)^2."""
    hop_s: float
    widest_share: float = 1.0
    """Largest share of the requests that one node runs: what a link to or from that node carries at most."""

    def cost(self, prefills_per_s: float, output_tokens: float, caution: float) -> float:
        """Seconds that the block adds to the mean round trip of a token.

        A round trip of each output token contains a decode step, and 1 / `output_tokens` of a prefill. `caution` is the
        weight of waiting behind prefills.
        """
        waiting = caution * HALF_BLOCKING * prefills_per_s * self.second_moment
        return DECODE_WORK * self.decode_s + waiting + self.hop_s + PREFILL_WORK * self.prefill_s / output_tokens


class Chain(NamedTuple):
    """Blocks that hold all layers, and the tokens/s that the program expects of them."""

    tokens_per_s: float
    blocks: list[Block]


def blocks(groups: Sequence[Group], predictor: Predictor, flow: float | None = None) -> list[Block]:
    """All blocks of a few nodes of one region.

    The nodes of a block share the requests in proportion to their capacity. With `flow` (tokens/s) they are filled one
    after another until the flow is reached, as a maximum flow that is not balanced may do; blocks that cannot carry the
    flow are left out.
    """
    result: list[Block] = []
    for region in dict.fromkeys(g.region for g in groups):
        inside = [i for i, g in enumerate(groups) if g.region == region]
        max_replicas = MAX_REPLICAS if len(inside) < MANY_GROUPS else MAX_REPLICAS_OF_MANY_GROUPS
        for replicas in range(1, max_replicas + 1):
            for chosen in combinations_with_replacement(inside, replicas):
                counts = tuple(chosen.count(i) for i in range(len(groups)))
                if all(n <= g.size for n, g in zip(counts, groups)):
                    longest = min(groups[i].max_layers for i in chosen)
                    for length in range(1, min(longest, predictor.problem.num_layers) + 1):
                        block = _block(groups, predictor, length, counts, region, flow)
                        if block is not None:
                            result.append(block)
    return result


def _block(
    groups: Sequence[Group],
    predictor: Predictor,
    length: int,
    counts: tuple[int, ...],
    region: str,
    flow: float | None,
) -> Block | None:
    """One block; None when a node of it has no throughput or all together carry less than `flow`."""
    speed = [g.throughput[length - 1] if n else 0.0 for g, n in zip(groups, counts)]
    total = sum(n * t for n, t in zip(counts, speed))
    if any(n and t <= 0 for n, t in zip(counts, speed)) or total <= 0 or total < (flow or 0.0):
        return None
    tokens = predictor.lengths.tokens
    problem = predictor.problem
    room = prefill = decode = moment = 0.0
    worst = np.inf
    left, widest = 1.0, 0.0
    for group, t in ((g, t) for g, n, t in zip(groups, counts, speed) for _ in range(n)):
        share = t / total if flow is None else min(t / flow, left)
        left, widest = left - share, max(widest, share)
        kv = problem.profiles[group.kind].kv_capacity(length) / length
        prefill_s, decode_s = length * predictor.prefill_s[group.kind], length * predictor.decode_s[group.kind]
        room += kv
        worst = min(worst, kv / max(share, 1e-9))
        prefill += share * prefill_s
        decode += share * decode_s
        moment += (share * max(0.0, prefill_s - decode_s)) ** 2
    in_flight = min(KV_MEAN_SHARE * room, KV_WORST_SHARE * worst) / tokens
    # The activations of a prompt take time on the link to the next block.
    link = problem.cluster.network.within_region
    sending = problem.model.link_bytes_per_token * predictor.lengths.input_tokens / link.bytes_per_s
    hop = link.latency_s + HOP_OVERHEAD_S
    return Block(length, counts, region, in_flight, prefill + sending, decode, moment, hop, widest)


def programs(
    groups: Sequence[Group],
    predictor: Predictor,
    solving: Solving,
    *,
    caution: float = CAUTION,
    flow: float | None = None,
    max_programs: int = MAX_PROGRAMS,
) -> Iterator[Chain]:
    """The best chain for each number of requests in flight on a grid, from many requests to few.

    A larger `caution` leads to fewer, wider blocks. `flow` is explained at `blocks`. Chains that were returned before
    are left out.
    """
    every = blocks(groups, predictor, flow)
    if not every:
        return
    num_layers, output = predictor.problem.num_layers, predictor.lengths.output_tokens
    low, high = 1.0, max(b.in_flight for b in every)
    seen: set[tuple[tuple[int, tuple[int, ...]], ...]] = set()
    for in_flight in np.geomspace(high, low, 3 * max_programs):
        if solving.watch.is_over():
            return
        allowed = [b for b in every if b.in_flight >= in_flight]
        rate = in_flight / FIRST_ROUND_TRIP_S
        chosen: list[Block] | None = None
        for _ in range(2):
            costs = {b: b.cost(rate / output, output, caution) for b in allowed}
            chosen = _choose(costs, groups, num_layers, solving)
            if chosen is None:
                break
            rate = in_flight / sum(b.cost(rate / output, output, caution) for b in chosen)
        if chosen is None:
            continue
        key = tuple(sorted((b.length, b.counts) for b in chosen))
        if key not in seen:
            seen.add(key)
            yield Chain(rate, chosen)
            if len(seen) >= max_programs:
                return


def _choose(
    costs: Mapping[Block, float], groups: Sequence[Group], num_layers: int, solving: Solving
) -> list[Block] | None:
    """The blocks of the least total cost that hold all layers; None when there are none."""
    kept = _undominated(costs)[:MAX_BLOCKS]
    if not kept:
        return None
    sizes = [g.size for g in groups]
    # The layers that each group could hold at most in any of its blocks, added up: a quick test for too few nodes.
    reach = sum(
        max((b.length / max(1, b.counts[g]) for b in kept if b.counts[g]), default=0) * n for g, n in enumerate(sizes)
    )
    if reach < num_layers:
        return None
    model = pyo.ConcreteModel("round trip")
    model.count = pyo.Var(range(len(kept)), domain=pyo.NonNegativeIntegers, bounds=(0, num_layers))
    model.round_trip = pyo.Objective(expr=sum(costs[b] * model.count[i] for i, b in enumerate(kept)))
    model.all_layers = pyo.Constraint(expr=sum(b.length * model.count[i] for i, b in enumerate(kept)) == num_layers)
    define_node_supply_constraints(model, [b.counts for b in kept], sizes)
    time_limit_s, stop = solving.watch.solver_limit(SOLVE_LIMIT_S)
    settings = SolverSettings(solving.solver, time_limit_s, MIP_GAP, solving.seed, stop)
    solution = solve_model(model, settings)
    if solution.value is None:
        return None
    return chosen_columns(model, kept)


def _undominated(costs: Mapping[Block, float]) -> list[Block]:
    """Blocks that no other of their length beats: in cost, with no more nodes of any group."""
    kept: list[Block] = []
    for b in sorted(costs, key=lambda b: (sum(b.counts), costs[b])):
        better = (
            o for o in kept
            if o.length == b.length and costs[o] <= costs[b] and all(x <= y for x, y in zip(o.counts, b.counts))
        )  # fmt: skip
        if next(better, None) is None:
            kept.append(b)
    return kept


def lay_out(chain: Sequence[Block], groups: Sequence[Group]) -> Placement:
    """A placement with the blocks one after another, in the order given."""
    slots: list[Slot] = []
    start = 0
    for block in chain:
        for g, count in enumerate(block.counts):
            slots += [Slot(g, start, start + block.length)] * count
        start += block.length
    return assign_nodes(slots, groups)


def orders(chain: Sequence[Block]) -> Iterator[list[Block]]:
    """Orders of the blocks: the blocks of a region together, for the first few orders of the regions.

    The links between regions are narrow. So the blocks that put the least load on one link stand at the ends of a
    region, where requests cross to another.
    """
    regions = dict.fromkeys(b.region for b in chain)
    for count, order in enumerate(permutations(regions)):
        if count >= MAX_ORDERS:
            return
        laid: list[Block] = []
        for place, region in enumerate(order):
            inside = sorted(
                (b for b in chain if b.region == region), key=lambda b: (round(b.widest_share, 3), -b.length, b.counts)
            )
            if len(order) == 1:
                inside.sort(key=lambda b: (-b.length, b.counts))
            elif place == 0:
                inside = inside[1:] + inside[:1]
            elif place < len(order) - 1 and len(inside) > 1:
                inside = [inside[0], *inside[2:], inside[1]]
            laid += inside
        yield laid
