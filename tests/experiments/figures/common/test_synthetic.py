"""Clusters of any size: the mix, the regions, and the same machines for a seed."""

from collections import Counter

import helix_kit as hk
from helix_kit.experiments.figures.common.synthetic import MIX, synthetic_cluster


def test_the_mix_is_that_of_the_published_cluster():
    published = Counter((n.gpu, n.gpus_per_node) for n in hk.Cluster.preset("hetero42").nodes)
    assert published == MIX


def test_machines_are_drawn_by_the_mix_and_spread_evenly():
    cluster = synthetic_cluster(2000, regions=4)
    counts = Counter((n.gpu, n.gpus_per_node) for n in cluster.nodes)
    for kind, of_42 in MIX.items():
        # Five standard deviations of a share of at most a quarter are below 5 % of 2000.
        assert abs(counts[kind] - 2000 * of_42 / 42) < 100
    assert Counter(n.region for n in cluster.nodes) == {f"region{i}": 500 for i in range(4)}
    near, far = cluster.nodes[0].name, cluster.nodes[-1].name
    assert cluster.link(near, far).bandwidth_gbps == 0.1
    assert cluster.link(near, cluster.nodes[1].name).bandwidth_gbps == 10


def test_a_seed_gives_the_same_cluster_and_another_seed_another():
    assert synthetic_cluster(30) == synthetic_cluster(30)
    assert synthetic_cluster(30) != synthetic_cluster(30, seed=1)
