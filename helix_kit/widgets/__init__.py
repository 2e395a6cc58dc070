"""Interactive pictures and editors for notebooks (needs the `notebooks` extra); each loads on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "FlowGraph": "helix_kit.widgets.flow_graph",
}

if TYPE_CHECKING:
    from helix_kit.widgets.flow_graph import FlowGraph

__all__ = ["FlowGraph"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'helix_kit.widgets' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
