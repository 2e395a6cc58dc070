"""Hop by hop: links that lead only to dead nodes are never offered."""

from __future__ import annotations

from cluster_views import OpenView, equal_requests

from helix_kit.cluster import COORDINATOR
from helix_kit.scheduling import Topology
from helix_kit.scheduling.hop_by_hop import HopByHop

# a and b hold the first half; a leads to c alone, b to c and d, which hold the second half.
TOPOLOGY = Topology(
    2,
    {"a": (0, 1), "b": (0, 1), "c": (1, 2), "d": (1, 2)},
    {
        COORDINATOR: (("a", 1.0), ("b", 1.0)),
        "a": (("c", 1.0),),
        "b": (("c", 1.0), ("d", 1.0)),
        "c": ((COORDINATOR, 1.0),),
        "d": ((COORDINATOR, 1.0),),
    },
    dict.fromkeys("abcd", 1000),
)


class Recording(HopByHop):
    """Takes the last candidate of each hop, and records which there were."""

    def __init__(self, topology):
        super().__init__(topology)
        self.offered = []

    def choose(self, source, candidates, request, view):
        self.offered.append((source, [node for _, node in candidates]))
        return len(candidates) - 1


def offered_to(view):
    policy = Recording(TOPOLOGY)
    (request,) = equal_requests(1)
    pipeline = policy.route(request, view)
    return policy.offered, pipeline and [stage.node for stage in pipeline]


def test_each_hop_offers_what_follows():
    assert offered_to(OpenView()) == (
        [(COORDINATOR, ["a", "b"]), ("b", ["c", "d"]), ("d", [COORDINATOR])],
        ["b", "d"],
    )


def test_a_node_that_leads_only_to_the_dead_is_not_offered():
    assert offered_to(OpenView(dead=["c"])) == (
        [(COORDINATOR, ["b"]), ("b", ["d"]), ("d", [COORDINATOR])],
        ["b", "d"],
    )


def test_without_a_live_path_there_is_no_pipeline():
    assert offered_to(OpenView(dead=["c", "d"])) == ([], None)


def test_a_node_that_comes_back_is_offered_again():
    policy = Recording(TOPOLOGY)
    (request,) = equal_requests(1)
    for dead, expected in ((["d"], ["b", "c"]), ([], ["b", "d"])):
        assert [stage.node for stage in policy.route(request, OpenView(dead=dead))] == expected
