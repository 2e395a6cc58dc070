"""Random scheduling: every hop is a uniform choice among the links (a baseline of Helix, section 6.7)."""

from __future__ import annotations

import random

from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import Topology, View
from helix_kit.workload.request import Request


class Random(HopByHop):
    """A uniform choice among the live links of each node.

    Parameters
    ----------
    topology
        Nodes and links of the plan.
    seed
        The same seed gives the same choices.

    Examples
    --------
    >>> from helix_kit.scheduling import Topology
    >>> topology = Topology(2, {"a": (0, 2), "b": (0, 2)},
    ...                     {"coordinator": (("a", 3.0), ("b", 1.0)), "a": (("coordinator", 3.0),),
    ...                      "b": (("coordinator", 1.0),)}, {"a": 4000, "b": 4000})
    >>> Random(topology, seed=1).name
    'random'
    """

    name = "random"

    def __init__(self, topology: Topology, *, seed: int = 0) -> None:
        super().__init__(topology)
        self._random = random.Random(seed)

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """A random position in `candidates`."""
        return self._random.randrange(len(candidates))
