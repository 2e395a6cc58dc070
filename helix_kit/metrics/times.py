"""Latencies of each request, from its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helix_kit.workload.request import RequestRecord


@dataclass(frozen=True, eq=False)
class RequestTimes:
    """Times of each request: arrays of shape (requests,), in the order of the records; nan where there is no time.

    Examples
    --------
    >>> from helix_kit.workload.request import Request
    >>> record = RequestRecord(Request(0, 1.0, 10, 3), outcome="finished", started_s=1.2, first_token_s=1.5,
    ...                        finished_s=2.1, tokens_generated=3)
    >>> times = RequestTimes.of([record])
    >>> [round(float(v[0]), 3) for v in (times.ttft_s, times.tpot_s, times.e2el_s, times.queue_s)]
    [0.5, 0.3, 1.1, 0.2]
    """

    arrival_s: np.ndarray
    """When each request arrived, on the run's clock."""
    started_s: np.ndarray
    """When it was given a pipeline."""
    first_token_s: np.ndarray
    """When its first token came."""
    ended_s: np.ndarray
    """When it ended, whatever its outcome; for one that was turned away without a time, its arrival."""
    output_tokens: np.ndarray
    """Tokens that came."""
    asked_tokens: np.ndarray
    """Tokens that were asked for."""
    finished: np.ndarray
    """Whether it was answered whole."""
    lost: np.ndarray
    """Whether it was rejected or failed."""

    @classmethod
    def of(cls, records: Sequence[RequestRecord], token_counts: np.ndarray | None = None) -> RequestTimes:
        """Times of `records`; `token_counts` are the tokens seen of each, shape (requests,), where they are known."""
        outcome = np.array([r.outcome for r in records], dtype=object)
        arrival_s = _array([r.request.arrival_s for r in records])
        ended_s = _array([r.finished_s for r in records])
        lost = (outcome == "rejected") | (outcome == "failed")
        output = np.array([r.tokens_generated for r in records], dtype=np.int64)
        # The published simulator's rules count the first token apart from the tokens asked for, so events decide.
        output = output if token_counts is None else np.maximum(output, token_counts)
        return cls(
            arrival_s=arrival_s,
            started_s=_array([r.started_s for r in records]),
            first_token_s=_array([r.first_token_s for r in records]),
            ended_s=np.where(lost & np.isnan(ended_s), arrival_s, ended_s),
            output_tokens=output,
            asked_tokens=np.array([r.request.output_tokens for r in records], dtype=np.int64),
            finished=outcome == "finished",
            lost=lost,
        )

    @property
    def ttft_s(self) -> np.ndarray:
        """Time to first token."""
        return self.first_token_s - self.arrival_s

    @property
    def e2el_s(self) -> np.ndarray:
        """End-to-end latency of the requests that were answered whole."""
        return np.where(self.finished, self.ended_s - self.arrival_s, np.nan)

    @property
    def tpot_s(self) -> np.ndarray:
        """Time per output token after the first; nan for answers of one token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return (self.e2el_s - self.ttft_s) / gaps

    @property
    def queue_s(self) -> np.ndarray:
        """Time from arrival to the start on a pipeline."""
        return self.started_s - self.arrival_s

    def within(self, window: tuple[float, float]) -> dict[str, np.ndarray]:
        """TTFT, TPOT, E2EL and queue time that became known within the window, by the keys of `Run.summary`."""
        ends = {
            "ttft_s": self.first_token_s,
            "tpot_s": self.ended_s,
            "e2el_s": self.ended_s,
            "queue_s": self.started_s,
        }
        found = {}
        for key, end_s in ends.items():
            values = getattr(self, key)
            found[key] = values[(end_s >= window[0]) & (end_s <= window[1]) & ~np.isnan(values)]
        return found


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes nan


def peak_concurrency(times: RequestTimes, window: tuple[float, float]) -> int:
    """The largest number of requests that were served at once: from the start on a pipeline to the end.

    Parameters
    ----------
    times
        The requests.
    window
        (start, end) in s: what happens outside does not count.

    Returns
    -------
    int
        0 when none was served in the window.

    Examples
    --------
    >>> from helix_kit.workload.request import Request
    >>> spans = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]
    >>> records = [RequestRecord(Request(i, a, 1, 1), outcome="finished", started_s=a, finished_s=b)
    ...            for i, (a, b) in enumerate(spans)]
    >>> peak_concurrency(RequestTimes.of(records), (0.0, 5.0))
    2
    """
    served = ~np.isnan(times.started_s) & ~times.lost
    starts = np.maximum(times.started_s[served], window[0])
    ends = np.where(np.isnan(times.ended_s), np.inf, times.ended_s)[served]
    inside = (starts <= window[1]) & (ends >= window[0])
    starts, ends = np.sort(starts[inside]), np.sort(ends[inside])
    # A request that ends at the moment when another one starts is served before it, not beside it.
    at_once = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
    return int(at_once.max(initial=0))


__all__ = ["RequestTimes", "peak_concurrency"]
