"""Flow networks of a placement: the graph, its maximum flow and minimum cut, and the pipelines that a flow is made of.

Modules: `network` (graph and capacities), `maximum` (a maximum flow), `balanced` (the maximum flow that loads nodes
most evenly), `arrays` (many flow values a second), `paths` (pipelines).
"""

from helix_kit.flow.maximum import Flow, max_flow
from helix_kit.flow.network import (
    MILLI,
    SINK,
    SOURCE,
    CardCapacity,
    Edge,
    Pipeline,
    Placement,
    Stage,
    build_flow_graph,
    can_follow,
    card_capacity_tokens_per_s,
    link_capacity_tokens_per_s,
)
from helix_kit.flow.paths import decompose, longest_path, pipeline_of, short_path_links

__all__ = [
    "MILLI",
    "SINK",
    "SOURCE",
    "CardCapacity",
    "Edge",
    "Flow",
    "Pipeline",
    "Placement",
    "Stage",
    "build_flow_graph",
    "can_follow",
    "card_capacity_tokens_per_s",
    "decompose",
    "link_capacity_tokens_per_s",
    "longest_path",
    "max_flow",
    "pipeline_of",
    "short_path_links",
]
