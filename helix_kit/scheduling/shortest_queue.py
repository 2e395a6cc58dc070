"""Shortest queue: every hop goes to the node with the fewest waiting requests (a baseline of Helix, section 6.7)."""

from __future__ import annotations

import random

from helix_kit.cluster import COORDINATOR
from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request


class ShortestQueue(HopByHop):
    """The shortest queue among the live links of each node. Requests on their way to a node do not count.

    Parameters
    ----------
    topology
        Nodes and links of the plan.
    seed
        Ties are broken at random. The same seed gives the same choices.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> ShortestQueue(topology).name
    'shortest_queue'
    """

    name = "shortest_queue"

    def __init__(self, topology: Topology, *, seed: int = 0) -> None:
        super().__init__(topology)
        self._random = random.Random(seed)

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """Position of a node with the shortest queue in `candidates`."""
        lengths = [-1 if node == COORDINATOR else view.queue_length(node) for _, node in candidates]
        least = min(lengths)
        return self._random.choice([i for i, length in enumerate(lengths) if length == least])
