"""Swarm's scheduler (Ryabinin et al., ICML'23, appendix C): round robin weighted by how fast each hop answered.

A node keeps a priority for each outgoing link. A prompt takes the smallest and adds to it the moving average of
the time that requests spent on the way over that link and on the node behind it.
"""

from __future__ import annotations

import numpy as np

from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request

FIRST_GUESS_S = 0.05
SMOOTHING = 0.8


class Swarm(HopByHop):
    """IWRR on measured hop times; `on_hop_time` feeds it."""

    name = "swarm"

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        count = len(topology.links)
        self._average_s = np.full(count, FIRST_GUESS_S)
        self._priority = np.full(count, FIRST_GUESS_S)
        self._index = {edge: i for i, edge in enumerate(topology.links)}

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """The smallest priority, ties to the first link."""
        best = min(range(len(candidates)), key=lambda c: (self._priority[candidates[c][0]], c))
        link = candidates[best][0]
        self._priority[link] += self._average_s[link]
        return best

    def on_hop_time(self, source: str, target: str, seconds: float) -> None:
        """Move the link's average towards what was just measured."""
        link = self._index[source, target]
        self._average_s[link] = SMOOTHING * seconds + (1 - SMOOTHING) * self._average_s[link]

    def hop_averages(self) -> tuple[np.ndarray, float]:
        """The averages themselves and the smoothing, so that the simulator keeps them in compiled code."""
        return self._average_s, SMOOTHING
