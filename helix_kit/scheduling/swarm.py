"""Swarm's scheduler (Ryabinin et al., ICML'23, appendix C): round robin weighted by the measured time of each hop.

A node keeps a priority for each outgoing link. A prompt takes the link with the smallest priority and adds to it the
moving average of the hop time: the time on the link and on the node behind it.
"""

from __future__ import annotations

import numpy as np

from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request

FIRST_HOP_TIME_S = 0.05
"""Hop time that is assumed before the first measurement, as published."""
SMOOTHING = 0.8
"""Weight of the newest time in the moving average, as published."""


class Swarm(HopByHop):
    """Round robin by measured hop times, which `on_hop_time` receives.

    Parameters
    ----------
    topology
        Nodes and links of the plan.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> policy = Swarm(topology)
    >>> policy.on_hop_time("coordinator", "a", 0.5)
    """

    name = "swarm"

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        count = len(topology.links)
        self._average_s = np.full(count, FIRST_HOP_TIME_S)
        self._priority = np.full(count, FIRST_HOP_TIME_S)
        self._index = {edge: i for i, edge in enumerate(topology.links)}

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """Position of the link with the smallest priority in `candidates`; of equal ones the first."""
        best = min(range(len(candidates)), key=lambda c: (self._priority[candidates[c][0]], c))
        link = candidates[best][0]
        self._priority[link] += self._average_s[link]
        return best

    def on_hop_time(self, source: str, target: str, seconds: float) -> None:
        """Move the average of a link towards the time just measured."""
        link = self._index[source, target]
        self._average_s[link] = SMOOTHING * seconds + (1 - SMOOTHING) * self._average_s[link]

    def hop_averages(self) -> tuple[np.ndarray, float]:
        """The array of averages and the smoothing factor: the simulator updates them in compiled code."""
        return self._average_s, SMOOTHING
