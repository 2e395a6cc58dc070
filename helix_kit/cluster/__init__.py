"""What you have: nodes (machines with one or more GPUs), regions, and the links between them.

A cluster is a frozen description. It comes from a preset, a YAML file or Python:

>>> from helix_kit.cluster import Cluster
>>> cluster = Cluster.model_validate({
...     "name": "two-regions",
...     "coordinator": {"region": "us"},
...     "nodes": [
...         {"gpu": "A100-40G", "count": 2, "region": "us"},
...         {"gpu": "L4", "gpus_per_node": 2, "region": "eu"},
...     ],
...     "network": {
...         "within_region": {"bandwidth_gbps": 10, "latency_ms": 1},
...         "between_regions": {"bandwidth_gbps": 0.1, "latency_ms": 50},
...     },
... })
>>> [node.name for node in cluster.nodes]
['A100-40G-0', 'A100-40G-1', 'L4x2-0']
>>> cluster.link("A100-40G-0", "L4x2-0").latency_ms
50.0

Units are in the names: ``bandwidth_gbps`` is 10^9 bit/s in each direction, ``latency_ms`` one way.
"""

from __future__ import annotations

from helix_kit.cluster.cluster import Cluster, load_cluster
from helix_kit.cluster.fields import COORDINATOR, MEMORY_SHARE, UNCONNECTED_GBPS
from helix_kit.cluster.links import Link, LinkException, Network, bytes_per_s
from helix_kit.cluster.machines import Coordinator, GpuSpec, Node, OwnPrice
from helix_kit.cluster.reading import preset_names

__all__ = [
    "COORDINATOR",
    "MEMORY_SHARE",
    "UNCONNECTED_GBPS",
    "Cluster",
    "Coordinator",
    "GpuSpec",
    "Link",
    "LinkException",
    "Network",
    "Node",
    "OwnPrice",
    "bytes_per_s",
    "load_cluster",
    "preset_names",
]
