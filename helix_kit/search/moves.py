"""Small changes to a placement, which local search tries next.

Every move takes (problem, placement, generator) and returns a new placement, or None when it does not apply. A move may
leave a layer that no node holds. The flow of such a placement is zero, so the search drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from helix_kit.flow import Placement
from helix_kit.placement.problem import Problem

Move = Callable[[Problem, Placement, np.random.Generator], Placement | None]


def shift_boundary(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Move one or two layers between neighbouring stages: every range that ends or starts at one boundary changes."""
    cuts = sorted({e for _, e in placement.values() if e < problem.num_layers})
    if not cuts:
        return None
    cut, by = cuts[rng.integers(len(cuts))], int(rng.choice([-2, -1, 1, 2]))
    return {n: (s + by if s == cut else s, e + by if e == cut else e) for n, (s, e) in placement.items()}


def shift_run(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Give a layer of one stage to another: all boundaries between the two move by one layer."""
    cuts = sorted({e for _, e in placement.values() if e < problem.num_layers})
    if len(cuts) < 2:
        return None
    first, last = sorted(rng.choice(len(cuts), 2, replace=False))
    by = int(rng.choice([-1, 1]))
    moved = {cut: cut + by for cut in cuts[first : last + 1]}
    return {n: (moved.get(s, s), moved.get(e, e)) for n, (s, e) in placement.items()}


def move_node(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Move a node to another stage, with as many of that stage's layers as it can hold."""
    names = sorted(placement)
    node, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    return _join(problem, placement, node, placement[other], rng)


def add_node(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Put a node that is not used into a stage."""
    free = [n.name for n in problem.cluster.nodes if n.name not in placement and problem.max_layers(n.name) > 0]
    if not free:
        return None
    spans = sorted(set(placement.values()))
    return _join(problem, placement, free[rng.integers(len(free))], spans[rng.integers(len(spans))], rng)


def _join(
    problem: Problem, placement: Placement, node: str, span: tuple[int, int], rng: np.random.Generator
) -> Placement | None:
    """The placement with `node` in the stage `span`; None when it is there already or can hold no layer."""
    size = min(span[1] - span[0], problem.max_layers(node))
    if size < 1 or placement.get(node) == span:
        return None
    # A smaller node holds the first or the last layers of the stage; requests enter or leave it part-way.
    start = span[0] if rng.random() < 0.5 else span[1] - size
    return {**placement, node: (start, start + size)}


def drop_node(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Take a node out of the plan; None when it is the only one."""
    if len(placement) < 2:
        return None
    names = sorted(placement)
    dropped = names[rng.integers(len(names))]
    return {n: span for n, span in placement.items() if n != dropped}


def resize_node(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Move one end of one node's range by a layer."""
    names = sorted(placement)
    node = names[rng.integers(len(names))]
    start, end = placement[node]
    by = int(rng.choice([-1, 1]))
    return {**placement, node: (start + by, end) if rng.random() < 0.5 else (start, end + by)}


def swap_nodes(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Exchange the ranges of two nodes of different kind or region."""
    names = sorted(placement)
    a, b = names[rng.integers(len(names))], names[rng.integers(len(names))]
    same = problem.kind_of[a] == problem.kind_of[b] and problem.cluster.region_of(a) == problem.cluster.region_of(b)
    if same or placement[a] == placement[b]:
        return None
    return {**placement, a: placement[b], b: placement[a]}


def swap_alike(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Exchange the ranges of two nodes of the same kind and region."""
    names = sorted(placement)
    a = names[rng.integers(len(names))]
    alike = [
        n for n in names
        if problem.kind_of[n] == problem.kind_of[a]
        and problem.cluster.region_of(n) == problem.cluster.region_of(a)
        and placement[n] != placement[a]
    ]  # fmt: skip
    if not alike:
        return None
    b = alike[rng.integers(len(alike))]
    return {**placement, a: placement[b], b: placement[a]}


def swap_stages(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Exchange two stages; the stages between them shift by the difference in length."""
    stages = stages_of(placement)
    if len(stages) < 2:
        return None
    order = list(range(len(stages)))
    a, b = rng.choice(len(stages), 2, replace=False)
    order[a], order[b] = order[b], order[a]
    return _in_order(stages, order)


def move_stage(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Move one stage to another position."""
    stages = stages_of(placement)
    if len(stages) < 3:
        return None
    order = list(range(len(stages)))
    taken = order.pop(int(rng.integers(len(order))))
    order.insert(int(rng.integers(len(order) + 1)), taken)
    return _in_order(stages, order)


def merge_stages(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Merge two neighbouring stages into one whose nodes hold the layers of both."""
    cuts = sorted({e for _, e in placement.values() if e < problem.num_layers})
    if not cuts:
        return None
    cut = cuts[rng.integers(len(cuts))]
    left = [span for span in placement.values() if span[1] == cut]
    right = [span for span in placement.values() if span[0] == cut]
    if not left or not right:
        return None
    start, end = min(s for s, _ in left), max(e for _, e in right)
    merged = {n: (start, end) if cut in span and span in (*left, *right) else span for n, span in placement.items()}
    # A node that cannot hold all of them keeps the end of the merged stage at which it was.
    for n, (s, e) in merged.items():
        limit = problem.max_layers(n)
        if e - s > limit:
            merged[n] = (s, s + limit) if placement[n][1] == cut else (e - limit, e)
    return merged


def split_stage(problem: Problem, placement: Placement, rng: np.random.Generator) -> Placement | None:
    """Split a stage of several nodes into two stages of half its length."""
    spans = [span for span in sorted(set(placement.values())) if span[1] - span[0] > 1]
    spans = [span for span in spans if sum(other == span for other in placement.values()) > 1]
    if not spans:
        return None
    start, end = spans[rng.integers(len(spans))]
    replicas = sorted(n for n, span in placement.items() if span == (start, end))
    rng.shuffle(replicas)
    middle, half = (start + end) // 2, (len(replicas) + 1) // 2
    return {
        **placement,
        **dict.fromkeys(replicas[:half], (start, middle)),
        **dict.fromkeys(replicas[half:], (middle, end)),
    }


class Span(NamedTuple):
    """A node of a stage, with its layer range counted from the stage's first layer."""

    node: str
    start: int
    end: int


def stages_of(placement: Placement) -> list[list[Span]]:
    """The stages of a placement: it is cut at every layer boundary that no range crosses."""
    stages: list[list[Span]] = []
    first = reach = 0
    for name, (start, end) in sorted(placement.items(), key=lambda item: (item[1], item[0])):
        if not stages or start >= reach:
            stages.append([])
            first = start
        stages[-1].append(Span(name, start - first, end - first))
        reach = max(reach, end)
    return stages


def _in_order(stages: list[list[Span]], order: list[int]) -> Placement:
    """The placement with the stages one after another, in the order of their indices."""
    placement: dict[str, tuple[int, int]] = {}
    at = 0
    for index in order:
        placement |= {n: (at + s, at + e) for n, s, e in stages[index]}
        at += max(e for _, _, e in stages[index])
    return placement


MOVES: tuple[Move, ...] = (
    shift_boundary, shift_run, shift_run, move_node, move_node, add_node, drop_node, resize_node, swap_nodes,
    swap_stages, move_stage, merge_stages, split_stage,
)  # fmt: skip
"""A move that is listed twice is tried twice as often."""
MOVES_ALIKE: tuple[Move, ...] = (*MOVES, swap_alike, swap_alike)
"""Moves for the flow split "any", where the flow also depends on which of two equal machines holds which range."""


def neighbours(
    problem: Problem, placement: Placement, rng: np.random.Generator, count: int, moves: Sequence[Move] = MOVES
) -> Iterator[Placement]:
    """Up to `count` different placements that are one or two moves away and that the nodes can hold."""
    seen = {key_of(placement)}
    for _ in range(20 * count):
        candidate: Placement | None = placement
        for _ in range(1 if rng.random() < 0.6 else 2):
            if candidate is not None:
                candidate = moves[int(rng.integers(len(moves)))](problem, candidate, rng)
        if candidate is None or not problem.holds(candidate) or key_of(candidate) in seen:
            continue
        seen.add(key_of(candidate))
        yield candidate
        if len(seen) > count:
            return


def key_of(placement: Placement) -> tuple[tuple[str, tuple[int, int]], ...]:
    """A placement as a value that can be compared and hashed."""
    return tuple(sorted(placement.items()))
