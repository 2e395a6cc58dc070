"""Base of the baselines: a pipeline made hop by hop, without looking ahead.

The published baselines choose the next hop when a prompt is about to leave a node. A coordinator that fixes
the whole pipeline at admission makes the same choices in the same order, from what it knows then.
"""

from __future__ import annotations

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Pipeline, pipeline_of
from helix_kit.scheduling.policy import Policy, Topology, View
from helix_kit.workload.request import Request


class HopByHop(Policy):
    """A policy that chooses one live link after another. Subclasses define `choose`."""

    topology: Topology
    topology_links = "all"

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._hops: dict[str, list[tuple[int, str]]] = {}
        index = 0
        for source, hops in topology.next_hops.items():
            self._hops[source] = [(index + i, target) for i, (target, _) in enumerate(hops)]
            index += len(hops)
        self._dead_ends: dict[frozenset[str], frozenset[str]] = {}

    def choose(self, source: str, candidates: list[tuple[int, str]], request: Request, view: View) -> int:
        """Position of the chosen link in `candidates`, which are (link index, next node)."""
        raise NotImplementedError

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The chosen pipeline, or None when no live path reaches the last layer."""
        dead = frozenset(n for n in self.topology.placement if not view.is_alive(n))
        useless = self._useless(dead)
        path: list[str] = []
        here = COORDINATOR
        while True:
            candidates = [(i, t) for i, t in self._hops[here] if t not in useless]
            if not candidates:
                return None
            _, here = candidates[self.choose(here, candidates, request, view)]
            if here == COORDINATOR:
                return pipeline_of(path, self.topology.placement)
            path.append(here)

    def _useless(self, dead: frozenset[str]) -> frozenset[str]:
        """Nodes that are dead, or whose links all lead to such nodes."""
        if dead not in self._dead_ends:
            useless = set(dead)
            for node in sorted(self.topology.placement, key=lambda n: -self.topology.placement[n][1]):
                if node not in dead and all(t in useless for _, t in self._hops[node]):
                    useless.add(node)
            self._dead_ends[dead] = frozenset(useless)
        return self._dead_ends[dead]
