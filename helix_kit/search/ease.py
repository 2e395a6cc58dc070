"""Flows that spare slow kinds of machine: less than the maximum, and more is served.

The maximum flow gives each machine requests by what it could carry. Where parts of different speed stand side by side,
slow ones then hold requests, and their keys and values, for long, while fast ones wait: the separate pipelines of
single24 (30B) serve 285 tokens/s together by the balanced maximum flow, and 399 where L4 and T4 are given three and two
tenths (window of 120 s).
And a request that passes slow machines holds its place in the fast ones all the while, so parts are best kept apart.

`Ease` says which share of its capacity a kind may be given. A kind named there whose own machines hold all layers
stands apart: no request changes over to or from other kinds. The flow is the balanced maximum under that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Flow, Placement
from helix_kit.placement.problem import Problem

Ease = dict[str, float]
"""Kind -> share of its capacity; kinds that are not named have all of theirs, and stand apart from none."""
FIRST_GUESS = 0.33
LEAST, STEPS = 0.1, (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)


def eased_flow(
    problem: Problem,
    placement: Placement,
    ease: Mapping[str, float],
    *,
    partial_inference: bool = True,
) -> Flow:
    """The balanced flow that requests follow; without `ease`, of all that can be carried."""
    kinds = problem.kind_of
    able = {n: t * ease.get(kinds[n], 1.0) for n, t in problem.node_throughput(placement).items()}
    apart = {kind for kind in ease if _holds_all(problem, placement, kind)}
    links = _within_parts(problem, placement, apart) if apart else None
    return problem.max_flow(
        placement, partial_inference=partial_inference, links=links, split="balanced", capacity_tokens_per_s=able
    )


def _within_parts(problem: Problem, placement: Placement, apart: Collection[str]) -> list[Edge]:
    """Links to and from the coordinator, and those between nodes of one kind that stands apart, or of the others."""
    part = {n: problem.kind_of[n] if problem.kind_of[n] in apart else "" for n in placement} | {COORDINATOR: None}
    names = [COORDINATOR, *placement]
    return [(a, b) for a in names for b in names if a != b and (None in (part[a], part[b]) or part[a] == part[b])]


def plain(problem: Problem, placement: Placement, ease: Ease) -> Ease:
    """The same ease without kinds that it changes nothing for: they have all of their capacity, and stand not apart."""
    return {k: share for k, share in ease.items() if share < 1 or _holds_all(problem, placement, k)}


def _holds_all(problem: Problem, placement: Placement, kind: str) -> bool:
    held: set[int] = set()
    for node, (start, end) in placement.items():
        if problem.kind_of[node] == kind:
            held.update(range(start, end))
    return len(held) == problem.num_layers


def sparing_slow(decode_s: Mapping[str, float], prefill_s: Mapping[str, float]) -> Ease:
    """A first guess, from seconds a layer by kind: kinds that decode at less than half the best speed are spared, the
    more the slower their prefill. Empty where there are none."""
    best = min(decode_s.values())
    slow = {kind: prefill_s[kind] for kind, seconds in decode_s.items() if seconds > 2 * best}
    if not slow:
        return {}
    return {k: round(FIRST_GUESS * min(slow.values()) / slow[k], 3) if k in slow else 1.0 for k in sorted(decode_s)}


def nudged(problem: Problem, placement: Placement, ease: Ease, rng: np.random.Generator) -> Ease:
    """One kind of the placement is given more or less."""
    kinds = sorted({problem.kind_of[n] for n in placement})
    kind = kinds[rng.integers(len(kinds))]
    share = round(min(1.0, max(LEAST, ease.get(kind, 1.0) * float(rng.choice(STEPS)))), 3)
    return dict(sorted({**ease, kind: share}.items()))
