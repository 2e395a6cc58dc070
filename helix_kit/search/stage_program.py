"""Plans for a given number of requests in flight: the N/R program.

A stage here is l layers held whole by a few nodes side by side. For N requests in flight only stages whose KV admits
N are allowed; the program picks the stages with the least round trip R among them, and X = N / R. One small integer
program for each N of a grid, with a row a group of equal nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations

import numpy as np
import pyomo.environ as pyo

from helix_kit.placement.groups import Group
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import Slot, assign_nodes, chosen_columns, define_node_supply_constraints
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

MOST_REPLICAS = 6
MOST_STAGES_KEPT = 4000
MIP_GAP = 0.005
CAUTION = 4.0
"""Weight of waiting behind prefills that makes the best plans more often than others."""
MOST_ORDERS = 6
HALF_BLOCKING = DECODE_STUCK * BLOCKING / 2
"""Weight of the second moment: what `Predictor`'s waiting term is for light load."""


@dataclass(frozen=True)
class Block:
    """`length` layers held by `counts[g]` nodes of each group side by side."""

    length: int
    counts: tuple[int, ...]
    region: str
    in_flight: float
    prefill_s: float
    decode_s: float
    second_moment: float
    hop_s: float
    widest_share: float = 1.0
    """Share of the requests that its busiest node runs: what a link to or from that node carries at most."""

    def cost(self, prefills_per_s: float, output_tokens: float, caution: float = 1.0) -> float:
        """Seconds that it adds to the mean round trip of a token; `caution` weighs waiting behind prefills."""
        waiting = caution * HALF_BLOCKING * prefills_per_s * self.second_moment
        return DECODE_WORK * self.decode_s + waiting + self.hop_s + PREFILL_WORK * self.prefill_s / output_tokens


def blocks(groups: Sequence[Group], predictor: Predictor, flow: float | None = None) -> list[Block]:
    """All blocks of up to MOST_REPLICAS nodes of one region.

    Their nodes share the requests in proportion to what they can; with `flow` (tokens/s) they are filled one after
    another until it is reached, as a maximum flow that nobody balanced may do, and blocks that carry less are left out.
    """
    found: list[Block] = []
    for region in dict.fromkeys(g.region for g in groups):
        inside = [i for i, g in enumerate(groups) if g.region == region]
        most = MOST_REPLICAS if len(inside) <= 4 else 4
        for replicas in range(1, most + 1):
            for chosen in combinations_with_replacement(inside, replicas):
                counts = tuple(chosen.count(i) for i in range(len(groups)))
                if all(n <= g.size for n, g in zip(counts, groups)):
                    longest = min(groups[i].max_layers for i in chosen)
                    for length in range(1, min(longest, predictor.problem.num_layers) + 1):
                        block = _block(groups, predictor, length, counts, region, flow)
                        if block is not None:
                            found.append(block)
    return found


def _block(
    groups: Sequence[Group],
    predictor: Predictor,
    length: int,
    counts: tuple[int, ...],
    region: str,
    flow: float | None,
) -> Block | None:
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
        p, d = length * predictor.prefill_s[group.kind], length * predictor.decode_s[group.kind]
        room += kv
        worst = min(worst, kv / max(share, 1e-9))
        prefill += share * p
        decode += share * d
        moment += (share * max(0.0, p - d)) ** 2
    in_flight = min(KV_MEAN_SHARE * room, KV_WORST_SHARE * worst) / tokens
    # Activations of a prompt take their time to the next stage.
    link = problem.cluster.network.within_region
    sending = problem.model.link_bytes_per_token * predictor.lengths.input_tokens / link.bytes_per_s
    hop = link.latency_s + HOP_OVERHEAD_S
    return Block(length, counts, region, in_flight, prefill + sending, decode, moment, hop, widest)


def programs(
    groups: Sequence[Group],
    predictor: Predictor,
    *,
    solver: str,
    over: Callable[[], bool],
    left: Callable[[], float],
    steps: int = 24,
    seed: int = 0,
    caution: float = 1.0,
    flow: float | None = None,
) -> Iterator[tuple[float, list[Block]]]:
    """(predicted tokens/s, blocks that hold the model) for N on a grid, from many requests in flight to few.

    The program sees each block's waiting alone; blocks in a row make each other wait. A `caution` above 1 stands for
    that, and leads to fewer, wider blocks. `flow`: see `blocks`.
    """
    every = blocks(groups, predictor, flow)
    if not every:
        return
    num_layers, output = predictor.problem.num_layers, predictor.lengths.output_tokens
    low, high = 1.0, max(b.in_flight for b in every)
    seen: set[tuple[tuple[int, tuple[int, ...]], ...]] = set()
    for in_flight in np.geomspace(high, low, 3 * steps):
        if over():
            return
        allowed = [b for b in every if b.in_flight >= in_flight]
        rate = in_flight / 1.5  # decode round trips are around a second; the second pass corrects it
        chosen: list[Block] | None = None
        for _ in range(2):
            chosen = _choose(
                allowed, groups, num_layers, rate / output, output, solver, min(3.0, left()), over, seed, caution
            )
            if chosen is None:
                break
            rate = in_flight / sum(b.cost(rate / output, output, caution) for b in chosen)
        if chosen is None:
            continue
        key = tuple(sorted((b.length, b.counts) for b in chosen))
        if key not in seen:
            seen.add(key)
            yield rate, chosen
            if len(seen) >= steps:
                return


def _choose(
    allowed: Sequence[Block],
    groups: Sequence[Group],
    num_layers: int,
    prefills_per_s: float,
    output_tokens: float,
    solver: str,
    time_limit_s: float,
    stop: Callable[[], bool],
    seed: int,
    caution: float,
) -> list[Block] | None:
    """Blocks of all layers with the least round trip, or None."""
    sizes = [g.size for g in groups]
    # A block that another of the same length beats in cost with no more nodes of any group is never chosen.
    costs = {b: b.cost(prefills_per_s, output_tokens, caution) for b in allowed}
    kept: list[Block] = []
    for b in sorted(allowed, key=lambda b: (sum(b.counts), costs[b])):
        better = (
            o for o in kept
            if o.length == b.length and costs[o] <= costs[b] and all(x <= y for x, y in zip(o.counts, b.counts))
        )  # fmt: skip
        if next(better, None) is None:
            kept.append(b)
    kept = kept[:MOST_STAGES_KEPT]
    if not kept:
        return None
    most = sum(max((b.length / max(1, b.counts[g]) for b in kept if b.counts[g]), default=0) * n
               for g, n in enumerate(sizes))  # fmt: skip
    if most < num_layers:
        return None
    model = pyo.ConcreteModel("round trip")
    model.count = pyo.Var(range(len(kept)), domain=pyo.NonNegativeIntegers, bounds=(0, num_layers))
    model.round_trip = pyo.Objective(expr=sum(costs[b] * model.count[i] for i, b in enumerate(kept)))
    model.all_layers = pyo.Constraint(expr=sum(b.length * model.count[i] for i, b in enumerate(kept)) == num_layers)
    define_node_supply_constraints(model, [b.counts for b in kept], sizes)
    solution = solve_model(model, SolverSettings(solver, time_limit_s, MIP_GAP, seed, stop))
    if solution.value is None:
        return None
    return chosen_columns(model, kept)


def lay_out(chosen: Sequence[Block], groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    """Nodes for blocks laid one after another in the order given."""
    slots: list[Slot] = []
    start = 0
    for block in chosen:
        for g, count in enumerate(block.counts):
            slots += [Slot(g, start, start + block.length)] * count
        start += block.length
    return assign_nodes(slots, groups)


def orders(chosen: Sequence[Block], groups: Sequence[Group]) -> Iterator[list[Block]]:
    """Blocks in order: by region, at both ends of a region those whose links are least loaded, in every order of
    regions (the first few)."""
    regions = dict.fromkeys(b.region for b in chosen)
    for count, order in enumerate(permutations(regions)):
        if count >= MOST_ORDERS:
            return
        laid: list[Block] = []
        for place, region in enumerate(order):
            inside = sorted(
                (b for b in chosen if b.region == region), key=lambda b: (round(b.widest_share, 3), -b.length, b.counts)
            )
            if len(order) == 1:
                inside.sort(key=lambda b: (-b.length, b.counts))
            elif place == 0:
                inside = inside[1:] + inside[:1]
            elif place < len(order) - 1 and len(inside) > 1:
                inside = [inside[0], *inside[2:], inside[1]]
            laid += inside
        yield laid
