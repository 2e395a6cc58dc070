"""The Pareto front of what was simulated: throughput, both mean latencies and depth, and how to pick from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from helix_kit.placement.served import ServedRow
from helix_kit.search.candidate import Candidate
from helix_kit.search.moves import key_of
from helix_kit.search.options import ParetoPick

MIN_SHARE = 0.8
"""A plan picked for its latency has at least this share of the largest throughput."""
MAX_ROWS = 20


class Point(NamedTuple):
    """What plans are compared by; in each number less is better."""

    minus_decode_tokens_per_s: float
    prompt_latency_s: float
    decode_latency_s: float
    stages: float
    minus_goodput_per_s: float = 0.0
    """Of the highest rate or of the goodput at a rate; 0 without an SLO."""

    def dominates(self, other: Point) -> bool:
        """Whether this is as good as `other` in every number, and better in at least one."""
        return self != other and all(mine <= theirs for mine, theirs in zip(self, other))


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other dominates, the largest throughput first.

    Candidates that have not been simulated are left out. Of several that measure exactly the same one is kept.
    """
    points = {id(c): _point(c) for c in candidates if c.score is not None}
    front: dict[Point, Candidate] = {}
    for c in candidates:
        mine = points.get(id(c))
        if mine is not None and not any(other.dominates(mine) for other in points.values()):
            front.setdefault(mine, c)
    return sorted(front.values(), key=lambda c: (_point(c), key_of(c.placement)))[:MAX_ROWS]


def rows_of(candidates: Sequence[Candidate], under_slo: bool = False) -> list[ServedRow]:
    """The front as a plan's file lists it: what each candidate serves, its stages, its flow and its placement."""
    named = ("goodput_per_s", "attainment", "slo_rate_per_s") if under_slo else ()
    return [
        ServedRow(
            decode_tokens_per_s=c.measured.decode_tokens_per_s,
            prompt_latency_s=c.measured.prompt_latency_s,
            decode_latency_s=c.measured.decode_latency_s,
            stages=c.depth,
            flow_tokens_per_s=c.flow.tokens_per_s,
            ease=c.shares,
            placement=dict(c.placement),
            **{name: getattr(c.measured, name) for name in named},
        )
        for c in pareto_front(candidates)
    ]


def pick(candidates: Sequence[Candidate], which: ParetoPick) -> Candidate:
    """One plan of the front.

    ``throughput`` has the most decode tokens/s. ``prompt`` and ``decode`` have the least mean latency of that kind
    among the plans with at least 80 % of the largest throughput. ``balanced`` has the largest
    throughput / sqrt(prompt latency x decode latency).
    """
    front = pareto_front(candidates)
    largest = front[0].measured.decode_tokens_per_s
    high = [c for c in front if c.measured.decode_tokens_per_s >= MIN_SHARE * largest]
    if which == "prompt":
        return min(high, key=lambda c: c.measured.prompt_latency_s)
    if which == "decode":
        return min(high, key=lambda c: c.measured.decode_latency_s)
    if which == "balanced":
        return max(front, key=_throughput_per_latency)
    return front[0]


def _throughput_per_latency(candidate: Candidate) -> float:
    measured = candidate.measured
    return measured.decode_tokens_per_s / max(1e-9, measured.prompt_latency_s * measured.decode_latency_s) ** 0.5


def _point(candidate: Candidate) -> Point:
    measured = candidate.measured
    return Point(
        -measured.decode_tokens_per_s, measured.prompt_latency_s, measured.decode_latency_s, float(candidate.depth),
        -(measured.slo_rate_per_s or measured.goodput_per_s),
    )  # fmt: skip
