"""Clusters of any size in the mix of the published cluster of 42 machines, for planning at scale."""

from __future__ import annotations

import random

from helix_kit.cluster import Cluster

MIX = {("T4", 1): 10, ("L4", 2): 4, ("L4", 1): 8, ("V100-16G", 1): 6, ("T4", 4): 4, ("A100-40G", 1): 4, ("T4", 2): 6}
"""(GPU, GPUs per machine) -> number of machines in hetero42."""


def synthetic_cluster(nodes: int, *, regions: int = 1, seed: int = 0) -> Cluster:
    """A cluster whose machines are drawn at random in the mix of hetero42, spread evenly over the regions.

    Links carry 10 Gbit/s within a region and 0.1 Gbit/s between regions, as in the published cluster of three regions.

    >>> cluster = synthetic_cluster(100, regions=5)
    >>> cluster.name, len(cluster.nodes), len(cluster.regions)
    ('synthetic-100-5', 100, 5)
    """
    kinds = random.Random(seed).choices(list(MIX), weights=list(MIX.values()), k=nodes)
    return Cluster.model_validate(
        {
            "name": f"synthetic-{nodes}-{regions}",
            "throughput": "published",
            "coordinator": {"region": "region0"},
            "nodes": [
                {"gpu": gpu, "gpus_per_node": count, "region": f"region{i * regions // nodes}"}
                for i, (gpu, count) in enumerate(kinds)
            ],
            "network": {
                "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
                "between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 50},
            },
        }
    )
