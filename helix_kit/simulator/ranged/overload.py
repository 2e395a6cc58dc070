"""Whether the queue of a simulation grew: then its latencies say how long it ran, not how fast the cluster is."""

from __future__ import annotations

from collections.abc import Sequence

GROWING = 1.25
"""The queue counts as growing when at the end it is this much longer than halfway, and longer than ten."""


def overload_notes(waiting_samples: Sequence[tuple[float, int]], last_arrival_s: float) -> list[str]:
    """A sentence if the queue grew until the last request arrived; `waiting_samples` are (time, requests that wait)."""
    arriving = [waiting for time_s, waiting in waiting_samples if time_s <= last_arrival_s + 1.0]
    if len(arriving) >= 4:
        half, last = arriving[len(arriving) // 2], arriving[-1]
        if last > 10 and last > GROWING * half:
            return [f"overload: {last} requests wait at {last_arrival_s:.0f} s, {half} did halfway; it grows"]
    return []
