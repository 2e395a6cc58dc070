"""What a plan says of the latency limits that it misses."""

from __future__ import annotations

from collections.abc import Iterable

from helix_kit._summary import number, percent
from helix_kit.search.candidate import Candidate, LatencyLimits


def limit_notes(chosen: Candidate, tried: Iterable[Candidate], limits: LatencyLimits) -> list[str]:
    """A sentence for each limit that the plan misses: by how much, and how near any plan of the search came.

    `tried` has what the search measured, in part in shorter runs than the chosen plan's.
    """
    found, others = chosen.measured, list(tried)
    notes = []
    for name, latency_s, limit_s in (
        ("decode_latency_s", found.decode_latency_s, limits.decode_s),
        ("prompt_latency_s", found.prompt_latency_s, limits.prompt_s),
    ):
        if limit_s is None or latency_s <= limit_s:
            continue
        least_s = min([latency_s, *(getattr(c.measured, name) for c in others if c.measured.decode_steps)])
        what = f"the limit of {number(limit_s)} s on the mean {name.removesuffix('_latency_s')} latency"
        above = f"this one has {number(latency_s)} s, {percent(latency_s / limit_s - 1)} above"
        if least_s <= limit_s:
            also = (
                f"one had {number(least_s)} s in a short simulation, and was slower in the last comparison or misses "
                "another limit"
            )
        else:
            also = f"the lowest of all plans tried is {number(least_s)} s"
        notes.append(f"no plan was found that meets {what}: {above}; {also}")
    return notes
