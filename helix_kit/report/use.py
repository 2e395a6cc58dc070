"""What a run records beside its requests: the use of nodes and links, batches, and the times of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helix_kit.workload.request import RequestRecord


@dataclass(frozen=True)
class NodeUse:
    """Use of a node within the window of a run.

    Examples
    --------
    >>> use = NodeUse(busy=0.5, blocked=0.2, starved=0.3, steps=10, prefill_tokens=100, decode_tokens=50)
    >>> use.busy + use.blocked + use.starved
    1.0
    """

    busy: float
    """Share of the time in which a batch runs."""
    blocked: float
    """Share of the time in which no batch runs and outputs wait for a link."""
    starved: float
    """Share of the time in which there is neither a batch nor an output."""
    steps: int
    """Batches run."""
    prefill_tokens: int
    """Prompt tokens run."""
    decode_tokens: int
    """Decode tokens run."""
    kv_capacity: int = 0
    """KV cache in `kv_unit` of the run."""
    kv_peak: int = 0
    """Largest use of the KV cache."""
    kv_mean: float = 0.0
    """Mean use of the KV cache over time."""


@dataclass(frozen=True)
class LinkUse:
    """Use of a link within the window of a run.

    Examples
    --------
    >>> LinkUse("a", "b", busy=0.25, bytes_sent=1e6, messages=10).busy
    0.25
    """

    source: str
    """Node that sends, or ``coordinator``."""
    target: str
    """Node that receives, or ``coordinator``."""
    busy: float
    """Share of the time in which it sends."""
    bytes_sent: float
    """Bytes on the link."""
    messages: int
    """Messages on the link."""


@dataclass(frozen=True)
class Batch:
    """One step of a node.

    Examples
    --------
    >>> Batch("a", start_s=1.0, end_s=1.5, prefill_tokens=100, decode_requests=4).node
    'a'
    """

    node: str
    """Name of the node."""
    start_s: float
    """Start on the run's clock."""
    end_s: float
    """End on the run's clock."""
    prefill_tokens: int
    """Prompt tokens in the batch."""
    decode_requests: int
    """Requests that decode a token in the batch."""


@dataclass(frozen=True, eq=False)
class TokenTimes:
    """The time of each token: flat arrays of equal length, in order of time within each request.

    Examples
    --------
    >>> TokenTimes(np.array([0, 0, 1]), np.array([1.0, 1.5, 1.2])).time_s.shape
    (3,)
    """

    request: np.ndarray
    """Position of the request in the run's records, shape (tokens,)."""
    time_s: np.ndarray
    """Shape (tokens,)."""

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> TokenTimes:
        """From the records' own lists."""
        counts = [len(r.token_times_s) for r in records]
        times = np.fromiter((t for r in records for t in r.token_times_s), dtype=float, count=sum(counts))
        return cls(np.repeat(np.arange(len(records)), counts), times)


__all__ = ["Batch", "LinkUse", "NodeUse", "TokenTimes"]
