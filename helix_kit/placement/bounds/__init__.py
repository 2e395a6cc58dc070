"""Upper bounds on the flow of any placement: what no plan can exceed, and why.

All but B4, B5 and B7 hold for every network, with and without partial inference, because they look only at layers and
nodes: in a placement of flow F every layer is held by nodes whose T add up to F (they carry it), and a node with k
layers stands in k of these sums. Plans name the bounds by the labels on the left.

======== ========================== ==================================================================================
compute  `Problem.compute_bound`    The published bound: sum_i max_k k T_i(k) / L.
B1       `spread_bound`             Node i adds at most max_k k min(T_i(k), F), and L layers need L F.
B2       `cover_bound`              A layer takes whole nodes, a cover of F: a linear program over covers.
B3       `whole_cover_bound`        The same with whole numbers of nodes of each size, and whole layers.
B4       `pair_bound`               Where links between regions are thin, one layer takes two nodes or more.
B5       `region_bound`             Paths stay in one region, or take one of the links between regions.
B6       `ordered_bound`            Whole nodes on ranges of whole layers, one after another: a search that is cut short
                                    by the prices of B2.
B7       `linked_bound`             The same with the flow over all links, for clusters of a few nodes.
======== ========================== ==================================================================================

If layers differ, T(k) is that of the best range of k layers: see `relaxations`.

>>> from helix_kit.cluster import Cluster
>>> from helix_kit.model import Model
>>> from helix_kit.placement.groups import groups_of
>>> from helix_kit.placement.problem import Problem
>>> problem = Problem.of(Cluster.preset("single24"), Model.preset("llama2-70b"))
>>> round(problem.compute_bound, 1), round(spread_bound(groups_of(problem), problem.num_layers), 1)
(2803.9, 2045.6)
"""

from helix_kit.placement.bounds.covers import (
    PRECISION,
    ProofEffort,
    cover_bound,
    cover_bound_of,
    whole_cover_bound,
)
from helix_kit.placement.bounds.linked import MAX_NODES as MAX_LINKED_NODES
from helix_kit.placement.bounds.linked import LinkedBound, linked_bound
from helix_kit.placement.bounds.ordered import OrderedBound, ordered_bound
from helix_kit.placement.bounds.pairs import pair_bound
from helix_kit.placement.bounds.regions import fastest_crossing, max_crossing, region_bound
from helix_kit.placement.bounds.relaxations import least_bound, relaxed_groups
from helix_kit.placement.bounds.spread import spread_bound

__all__ = [
    "MAX_LINKED_NODES",
    "PRECISION",
    "LinkedBound",
    "OrderedBound",
    "ProofEffort",
    "cover_bound",
    "cover_bound_of",
    "fastest_crossing",
    "least_bound",
    "linked_bound",
    "max_crossing",
    "ordered_bound",
    "pair_bound",
    "region_bound",
    "relaxed_groups",
    "spread_bound",
    "whole_cover_bound",
]
