"""Interactive flow graph and editors for notebooks. They need the `notebooks` extra and load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ClusterEditor": "helix_kit.widgets.cluster_editor",
    "FlowGraph": "helix_kit.widgets.flow_graph",
    "PlacementEditor": "helix_kit.widgets.placement_editor",
}

if TYPE_CHECKING:
    from helix_kit.widgets.cluster_editor import ClusterEditor
    from helix_kit.widgets.flow_graph import FlowGraph
    from helix_kit.widgets.placement_editor import PlacementEditor

__all__ = ["ClusterEditor", "FlowGraph", "PlacementEditor"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'helix_kit.widgets' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
