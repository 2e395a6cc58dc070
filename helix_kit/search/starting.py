"""Placements that a served plan must not be worse than, proposed and simulated before all others.

These are the flow plan, the baselines, replicas of the whole model, and the regions and kinds of machine alone and side
by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from helix_kit.flow import Placement
from helix_kit.placement.groups import groups_of
from helix_kit.placement.pattern.starts import start_placements
from helix_kit.placement.problem import Problem
from helix_kit.placement.watch import Watch


def safe_placements(problem: Problem, known: Sequence[Placement], seed: int, watch: Watch) -> Iterator[Placement]:
    """The placements, those that are `known` first, until the time is over; the baselines come in any case.

    Of parts side by side, each part alone is proposed too, and the fastest parts together: more machines are not always
    better, since a scheduler in front of slow ones lets requests wait for them.
    """
    yield from known
    groups = groups_of(problem)

    def value_of(placement: Placement) -> float:
        return problem.max_flow(placement).tokens_per_s

    speed = {kind: max(ts, default=0.0) for kind, ts in problem.throughput_by_kind.items()}
    regions = {n.name: problem.cluster.region_of(n.name) for n in problem.cluster.nodes}
    for placement in start_placements(problem, groups, seed, value_of, watch.is_over):
        yield placement
        for part_of in (problem.kind_of, regions):
            parts = dict.fromkeys(part_of[n] for n in placement)
            if len(parts) < 2:
                continue
            for part in parts:
                yield {n: span for n, span in placement.items() if part_of[n] == part}
        kinds = sorted({problem.kind_of[n] for n in placement}, key=lambda kind: -speed[kind])
        for count in range(2, len(kinds)):
            fastest = set(kinds[:count])
            yield {n: span for n, span in placement.items() if problem.kind_of[n] in fastest}
