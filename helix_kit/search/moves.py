"""Small changes to a placement: what local search tries next.

Every function takes (problem, placement, generator) and returns a new placement, or None when the change does not
apply. A change may break a plan (a layer that nobody holds): the flow, which is then zero, says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from helix_kit.placement.problem import Problem

Layout = dict[str, tuple[int, int]]
Move = Callable[[Problem, Layout, np.random.Generator], Layout | None]


def shift_boundary(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Move a layer between neighbouring stages: all ranges that end or start at one boundary."""
    cuts = sorted({e for _, e in placement.values() if e < problem.num_layers})
    if not cuts:
        return None
    cut, by = cuts[rng.integers(len(cuts))], int(rng.choice([-2, -1, 1, 2]))
    return {n: (s + by if s == cut else s, e + by if e == cut else e) for n, (s, e) in placement.items()}


def shift_run(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Give a layer of one stage to another: all boundaries between the two move by one."""
    cuts = sorted({e for _, e in placement.values() if e < problem.num_layers})
    if len(cuts) < 2:
        return None
    first, last = sorted(rng.choice(len(cuts), 2, replace=False))
    by = int(rng.choice([-1, 1]))
    moved = {cut: cut + by for cut in cuts[first : last + 1]}
    return {n: (moved.get(s, s), moved.get(e, e)) for n, (s, e) in placement.items()}


def move_node(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """One node leaves its stage and joins another, as much of it as it holds."""
    names = sorted(placement)
    node, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    return _join(problem, placement, node, placement[other], rng)


def add_node(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """A node that is out of the plan joins a stage."""
    free = [n.name for n in problem.cluster.nodes if n.name not in placement and problem.max_layers(n.name) > 0]
    if not free:
        return None
    spans = sorted(set(placement.values()))
    return _join(problem, placement, free[rng.integers(len(free))], spans[rng.integers(len(spans))], rng)


def _join(
    problem: Problem, placement: Layout, node: str, span: tuple[int, int], rng: np.random.Generator
) -> Layout | None:
    size = min(span[1] - span[0], problem.max_layers(node))
    if size < 1 or placement.get(node) == span:
        return None
    # What does not fit hangs over at the front or the back: the rest is entered part-way.
    start = span[0] if rng.random() < 0.5 else span[1] - size
    return {**placement, node: (start, start + size)}


def drop_node(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """One node leaves the plan."""
    names = sorted(placement)
    gone = names[rng.integers(len(names))]
    return {n: span for n, span in placement.items() if n != gone}


def resize_node(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """One end of one range moves by a layer."""
    names = sorted(placement)
    node = names[rng.integers(len(names))]
    start, end = placement[node]
    by = int(rng.choice([-1, 1]))
    return {**placement, node: (start + by, end) if rng.random() < 0.5 else (start, end + by)}


def swap_nodes(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Two nodes of different kind or region change places."""
    names = sorted(placement)
    a, b = names[rng.integers(len(names))], names[rng.integers(len(names))]
    same = problem.kind_of[a] == problem.kind_of[b] and problem.cluster.region_of(a) == problem.cluster.region_of(b)
    if same or placement[a] == placement[b]:
        return None
    return {**placement, a: placement[b], b: placement[a]}


def swap_alike(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Two equal nodes change places."""
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


def swap_stages(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Two stages of a plan change places, and what lies between them moves along."""
    stages = stages_of(placement)
    if len(stages) < 2:
        return None
    order = list(range(len(stages)))
    a, b = rng.choice(len(stages), 2, replace=False)
    order[a], order[b] = order[b], order[a]
    return _lay(stages, order)


def move_stage(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """One stage is taken out and put in elsewhere."""
    stages = stages_of(placement)
    if len(stages) < 3:
        return None
    order = list(range(len(stages)))
    taken = order.pop(int(rng.integers(len(order))))
    order.insert(int(rng.integers(len(order) + 1)), taken)
    return _lay(stages, order)


def merge_stages(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """Two neighbouring stages become one whose nodes hold the layers of both."""
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
    # Small nodes hold what they can, at the end where they were.
    for n, (s, e) in merged.items():
        most = problem.max_layers(n)
        if e - s > most:
            merged[n] = (s, s + most) if placement[n][1] == cut else (e - most, e)
    return merged


def split_stage(problem: Problem, placement: Layout, rng: np.random.Generator) -> Layout | None:
    """The replicas of one stage become two stages of half its length."""
    spans = [span for span in sorted(set(placement.values())) if span[1] - span[0] > 1]
    spans = [span for span in spans if sum(other == span for other in placement.values()) > 1]
    if not spans:
        return None
    start, end = spans[rng.integers(len(spans))]
    members = sorted(n for n, span in placement.items() if span == (start, end))
    rng.shuffle(members)
    middle, half = (start + end) // 2, (len(members) + 1) // 2
    return {
        **placement,
        **dict.fromkeys(members[:half], (start, middle)),
        **dict.fromkeys(members[half:], (middle, end)),
    }


def stages_of(placement: Layout) -> list[list[tuple[str, int, int]]]:
    """The plan cut where no range crosses: each part as (node, start, end) from the part's first layer."""
    parts: list[list[tuple[str, int, int]]] = []
    reach = 0
    for name, (start, end) in sorted(placement.items(), key=lambda item: (item[1], item[0])):
        if not parts or start >= reach:
            parts.append([])
            begin = start
        parts[-1].append((name, start - begin, end - begin))
        reach = max(reach, end)
    return parts


def _lay(stages: list[list[tuple[str, int, int]]], order: list[int]) -> Layout:
    placement: Layout = {}
    at = 0
    for index in order:
        placement |= {n: (at + s, at + e) for n, s, e in stages[index]}
        at += max(e for _, _, e in stages[index])
    return placement


MOVES: tuple[Move, ...] = (
    shift_boundary, shift_run, shift_run, move_node, move_node, add_node, drop_node, resize_node, swap_nodes,
    swap_stages, move_stage, merge_stages, split_stage,
)  # fmt: skip
"""Those that stand twice are tried twice as often."""
MOVES_OF_ANY: tuple[Move, ...] = (*MOVES, swap_alike, swap_alike)
"""Where the split is the first maximum flow met, it depends on which of two equal machines stands where."""


def neighbours(
    problem: Problem, placement: Layout, rng: np.random.Generator, count: int, moves: Sequence[Move] = MOVES
) -> Iterator[Layout]:
    """Up to `count` different placements, one or two moves away."""
    seen = {key_of(placement)}
    made = 0
    for _ in range(20 * count):
        candidate: Layout | None = placement
        for _ in range(1 if rng.random() < 0.6 else 2):
            if candidate is not None:
                candidate = moves[int(rng.integers(len(moves)))](problem, candidate, rng)
        if candidate is None or not problem.holds(candidate) or key_of(candidate) in seen:
            continue
        seen.add(key_of(candidate))
        made += 1
        yield candidate
        if made >= count:
            return


def key_of(placement: Layout) -> tuple[tuple[str, tuple[int, int]], ...]:
    """A placement as a value that can be compared and hashed."""
    return tuple(sorted(placement.items()))
