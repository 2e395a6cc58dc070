"""How tests read the scene of a flow graph."""

from __future__ import annotations

from helix_kit.plots.scene import Curve, Group, Rect, Scene


def nodes_of(scene: Scene) -> dict[str, Group]:
    return {dict(g.data)["node"]: g for g in scene.groups if g.role == "node"}


def outline(group: Group) -> Rect:
    return next(i for i in group.items if isinstance(i, Rect) and i.stroke)


def edges_of(scene: Scene) -> dict[tuple[str, str], Group]:
    return {(dict(g.data)["source"], dict(g.data)["target"]): g for g in scene.groups if g.role == "edge"}


def curve(group: Group) -> Curve:
    return next(i for i in group.items if isinstance(i, Curve))
