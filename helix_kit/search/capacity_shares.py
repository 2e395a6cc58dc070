"""Flows that use only a share of what slow kinds of machine can carry.

The maximum flow gives each machine as many requests as it can carry. Where fast and slow machines stand side by side,
each holding the whole model, this keeps the slow ones busy for too long: their requests occupy KV cache for longer,
and meanwhile the fast machines wait for requests. An example: the published separate pipelines of single24 (30B) serve
285 tokens/s with the balanced maximum flow, and 399 tokens/s when L4 machines are given three tenths and T4 machines
two tenths of what they can carry (simulated, window of 120 s).

`CapacityShares` says which share of its capacity each kind is given. A kind that is named there, and whose machines
hold all layers among themselves, is also kept apart: no request moves between it and other kinds. This matters because
a request that is slow on one machine holds its KV cache on the fast machines for just as long. The flow is the balanced
maximum flow under these two rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from helix_kit._wording import join_names
from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Flow, Placement
from helix_kit.placement.problem import Problem

CapacityShares = dict[str, float]
"""Kind of machine -> share of its capacity that the flow may use. A kind that is not named keeps all of its capacity,
and is not kept apart."""
FIRST_SHARE = 0.33
"""Share that the fastest of the slow kinds is given as a first guess."""
MIN_SHARE = 0.1
FACTORS = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
"""Factors by which local search changes a share."""


def flow_with_shares(
    problem: Problem, placement: Placement, shares: Mapping[str, float], *, partial_inference: bool = True
) -> Flow:
    """The balanced maximum flow where each kind has `shares` of its capacity; without shares, of all capacity."""
    kinds = problem.kind_of
    capacities = {n: t * shares.get(kinds[n], 1.0) for n, t in problem.node_throughput(placement).items()}
    apart = {kind for kind in shares if _holds_all_layers(problem, placement, kind)}
    links = _links_within_kinds(problem, placement, apart) if apart else None
    return problem.max_flow(
        placement, partial_inference=partial_inference, links=links, split="balanced", capacity_tokens_per_s=capacities
    )


def _links_within_kinds(problem: Problem, placement: Placement, apart: Collection[str]) -> list[Edge]:
    """Links that no request uses to change between a kind in `apart` and any other kind."""
    part = {n: problem.kind_of[n] if problem.kind_of[n] in apart else "" for n in placement} | {COORDINATOR: None}
    names = [COORDINATOR, *placement]
    return [(a, b) for a in names for b in names if a != b and (None in (part[a], part[b]) or part[a] == part[b])]


def effective_shares(problem: Problem, placement: Placement, shares: CapacityShares) -> CapacityShares:
    """`shares` as far as they change how requests are divided, as large as they can be.

    Shares divide requests between kinds that hold the same layers. One factor for all of these kinds makes the flow
    less and divides it in the same way, so their largest share becomes 1. Then a kind with all its capacity needs no
    entry, unless it holds all layers and is kept apart from another kind.
    """
    found: CapacityShares = {}
    for kinds in _kinds_of_the_same_layers(problem, placement):
        largest = max(shares.get(kind, 1.0) for kind in kinds)
        for kind in kinds & set(shares):
            share = shares[kind] if largest == 1 else round(shares[kind] / largest, 3)
            if share < 1 or (len(kinds) > 1 and _holds_all_layers(problem, placement, kind)):
                found[kind] = share
    return dict(sorted(found.items()))


def _kinds_of_the_same_layers(problem: Problem, placement: Placement) -> list[set[str]]:
    """The kinds of the placement, those together that hold a common layer, or are linked by others that do."""
    groups: list[tuple[set[str], set[int]]] = []
    for node, (start, end) in placement.items():
        kinds, layers = {problem.kind_of[node]}, set(range(start, end))
        apart = []
        for group in groups:
            if group[0] & kinds or group[1] & layers:
                kinds, layers = kinds | group[0], layers | group[1]
            else:
                apart.append(group)
        groups = [*apart, (kinds, layers)]
    return [kinds for kinds, _ in groups]


def _holds_all_layers(problem: Problem, placement: Placement, kind: str) -> bool:
    held: set[int] = set()
    for node, (start, end) in placement.items():
        if problem.kind_of[node] == kind:
            held.update(range(start, end))
    return len(held) == problem.num_layers


def first_shares(decode_s: Mapping[str, float], prefill_s: Mapping[str, float]) -> CapacityShares:
    """A first guess from the seconds that each kind takes for a layer.

    Kinds that decode at less than half the speed of the fastest are slow. The slow kind with the fastest prefill is
    given a third of its capacity, the others less in proportion to their prefill speed. Empty where no kind is slow.
    """
    best = min(decode_s.values())
    slow = {kind: prefill_s[kind] for kind, seconds in decode_s.items() if seconds > 2 * best}
    if not slow:
        return {}
    return {k: round(FIRST_SHARE * min(slow.values()) / slow[k], 3) if k in slow else 1.0 for k in sorted(decode_s)}


def vary_share(
    problem: Problem, placement: Placement, shares: CapacityShares, rng: np.random.Generator
) -> CapacityShares:
    """`shares` with a larger or smaller share for one kind of the placement, chosen at random."""
    kinds = sorted({problem.kind_of[n] for n in placement})
    kind = kinds[rng.integers(len(kinds))]
    share = round(min(1.0, max(MIN_SHARE, shares.get(kind, 1.0) * float(rng.choice(FACTORS)))), 3)
    return dict(sorted({**shares, kind: share}.items()))


def share_notes(shares: CapacityShares) -> list[str]:
    """What a reader of a plan must know: which kinds get less than they could carry, and which are only kept apart.

    >>> share_notes({"H100-80G": 1.0, "L4": 0.3})[1]
    'no request moves between H100-80G and other kinds: more is served so'
    """
    notes = []
    if less := ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share < 1):
        notes.append(
            f"the flow is less than the maximum: more is served where kinds use a share of their capacity: {less}"
        )
    if apart := [kind for kind, share in shares.items() if share == 1]:
        notes.append(f"no request moves between {join_names(apart)} and other kinds: more is served so")
    return notes
