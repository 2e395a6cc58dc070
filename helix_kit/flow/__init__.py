"""Flow networks of a placement: the graph, its maximum flow and min cut, and the pipelines that the flow is made of."""

from helix_kit.flow.network import (
    MILLI,
    SINK,
    SOURCE,
    Edge,
    Flow,
    Pipeline,
    Placement,
    Stage,
    build_flow_graph,
    can_follow,
    decompose,
    link_capacity_tokens_per_s,
    max_flow,
    pipeline_of,
)

__all__ = [
    "MILLI",
    "SINK",
    "SOURCE",
    "Edge",
    "Flow",
    "Pipeline",
    "Placement",
    "Stage",
    "build_flow_graph",
    "can_follow",
    "decompose",
    "link_capacity_tokens_per_s",
    "max_flow",
    "pipeline_of",
]
