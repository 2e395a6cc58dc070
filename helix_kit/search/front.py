"""The Pareto front of what was simulated: throughput, both mean latencies and depth, and how to pick from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helix_kit.search.evaluate import Candidate
from helix_kit.search.moves import key_of

PICKS = ("throughput", "prompt", "decode", "balanced")
LEAST_SHARE = 0.8
"""Share of the most throughput that a plan picked for its latency still has."""
LONGEST = 20
_MEASURED = ("decode_tokens_per_s", "prompt_latency_s", "decode_latency_s")


def of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other beats in throughput, both latencies and depth at once, most throughput first.

    Of plans that measure exactly the same one is kept.
    """
    points = {id(c): _point(c) for c in candidates if c.served}
    kept: dict[tuple[float, ...], Candidate] = {}
    for c in candidates:
        mine = points.get(id(c))
        if mine is not None and not any(_beats(other, mine) for other in points.values()):
            kept.setdefault(mine, c)
    return sorted(kept.values(), key=lambda c: (_point(c), key_of(c.placement)))[:LONGEST]


def table(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The front as rows: what is served, stages, flow, and the placement itself."""
    return [
        {
            **{k: (c.served or {})[k] for k in _MEASURED},
            "stages": c.depth,
            "flow_tokens_per_s": c.flow.tokens_per_s,
            "ease": c.ease,
            "placement": {n: list(span) for n, span in c.placement.items()},
        }
        for c in of(candidates)
    ]


def pick(candidates: Sequence[Candidate], which: str) -> Candidate:
    """One plan of the front.

    ``throughput`` has the most decode tokens/s; ``prompt`` and ``decode`` the least mean latency of that kind among
    those with at least 80 % of the most throughput; ``balanced`` the largest throughput / sqrt(prompt x decode).
    """
    few = of(candidates)
    most = -_point(few[0])[0]
    quick = [c for c in few if -_point(c)[0] >= LEAST_SHARE * most]
    if which == "prompt":
        return min(quick, key=lambda c: _point(c)[1])
    if which == "decode":
        return min(quick, key=lambda c: _point(c)[2])
    if which == "balanced":
        return max(few, key=lambda c: -_point(c)[0] / max(1e-9, _point(c)[1] * _point(c)[2]) ** 0.5)
    return few[0]


def _point(candidate: Candidate) -> tuple[float, ...]:
    """What counts, less is better in each."""
    served = candidate.served or {}
    throughput, prompt, decode = (served[k] for k in _MEASURED)
    return (-throughput, prompt, decode, float(candidate.depth))


def _beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b))
