"""What an engine writes down while it runs, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from helix_kit.report import Batch
from helix_kit.simulator.state import BATCH, LogArrays

FIRST_ROOM = 1 << 14
"""Tokens (and batches) for which there is room at first; both grow."""


class KVSample(NamedTuple):
    """KV use of every node at one moment."""

    time_s: float
    nodes: Sequence[str]
    used: np.ndarray
    """In the engine's `kv_unit`, one number for each of `nodes`."""


@dataclass
class RunLog:
    """Tokens and batches from compiled code, and the fate of each request, by its place in the workload."""

    arrays: LogArrays
    rejected: dict[int, str] = field(default_factory=dict)
    """Why a request was turned away."""
    started_s: dict[int, float] = field(default_factory=dict)
    finished_s: dict[int, float] = field(default_factory=dict)
    restarts: dict[int, int] = field(default_factory=dict)
    cached_tokens: dict[int, int] = field(default_factory=dict)
    """Prompt tokens that were found in prefix caches, of requests that found any at their first start."""
    kv_samples: list[KVSample] = field(default_factory=list)
    batches_before: list[Batch] = field(default_factory=list)
    """Batches of plans that were in force before."""

    @classmethod
    def for_requests(cls, count: int, *, record_batches: bool) -> RunLog:
        """An empty log with room for the first tokens of `count` requests."""
        room = FIRST_ROOM + 2 * count
        batches = np.zeros(FIRST_ROOM if record_batches else 2, dtype=BATCH)
        return cls(LogArrays(np.zeros(room, dtype=np.int32), np.zeros(room), batches))

    def grow(self) -> None:
        """Double the room for tokens, and for batches where they are recorded."""
        request, time, batches = (np.concatenate([old, np.zeros_like(old)]) for old in self.arrays)
        self.arrays = LogArrays(request, time, batches if len(self.arrays.batches) > 2 else self.arrays.batches)

    def batches(self, count: int, names: Sequence[str], start_s: float) -> list[Batch]:
        """The first `count` batches of the arrays, for the report; `names` of the nodes, times from `start_s` on."""
        return [
            Batch(
                names[b["node"]],
                float(b["start"]) - start_s,
                float(b["end"]) - start_s,
                int(b["prefill"]),
                int(b["decodes"]),
            )
            for b in self.arrays.batches[:count]
        ]
