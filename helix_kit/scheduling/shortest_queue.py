"""Shortest queue: every hop to the node with the fewest requests in front of its first layer."""

from __future__ import annotations

import random

from helix_kit.cluster import COORDINATOR
from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request


class ShortestQueue(HopByHop):
    """The least queue among the live links of each node, ties at random; transfers on the way do not count."""

    name = "shortest_queue"

    def __init__(self, topology: Topology, *, seed: int = 0) -> None:
        super().__init__(topology)
        self._random = random.Random(seed)

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """One of those with the least queue."""
        lengths = [-1 if node == COORDINATOR else view.queue_length(node) for _, node in candidates]
        least = min(lengths)
        return self._random.choice([i for i, length in enumerate(lengths) if length == least])
