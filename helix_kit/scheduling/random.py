"""Random routing: every hop a uniform choice among the links (the paper's weakest scheduler)."""

from __future__ import annotations

import random

from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request


class Random(HopByHop):
    """Uniform over the live links of each node; the same seed gives the same choices."""

    name = "random"

    def __init__(self, topology: Topology, *, seed: int = 0) -> None:
        super().__init__(topology)
        self._random = random.Random(seed)

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """Any of the candidates."""
        return self._random.randrange(len(candidates))
