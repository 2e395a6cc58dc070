"""The legend of a flow picture, with only the signs that the picture needs."""

from __future__ import annotations

import dataclasses

from helix_kit.placement.plan import Plan
from helix_kit.plots.machines import Stream
from helix_kit.plots.scene import Curve, Group, Item, Polygon, Rect, Text, text_width


def region_ribbon(curve: Curve) -> tuple[Curve, ...]:
    """A ribbon between regions, with a dashed centre line so that it differs in more than its colour."""
    if curve.width < 3.5:
        return (dataclasses.replace(curve, dashed=True),)
    return curve, Curve(curve.points, "paper", 1.2, dashed=True)


def legend(plan: Plan, y: float, left: float, width: float, streams: list[Stream]) -> tuple[Group, float]:
    """The legend's entries in as many rows as they take, and y of its bottom."""
    entries: list[tuple[str, str]] = [("filling", "height of the filling = share of capacity used")]
    entries.append(("ribbon", "width = tokens/s"))
    if any(s.partial for s in streams):
        entries.append(("entry", "enters mid-way (partial inference)"))
    if any(s.crosses_regions for s in streams):
        entries.append(("far", "between regions"))
    if plan.max_flow.min_cut:
        entries.append(("cut", "min cut: together they limit the flow"))
    items: list[Item] = []
    x = left
    for sign, text in entries:
        needed = 26 + 0.87 * text_width(text, 10.5)
        if x > left and x + needed > width - 14:
            x, y = left, y + 20
        items += _sign(sign, x, y)
        items.append(Text(x + 26, y + 3.8, text, 10.5, fill="muted"))
        x += needed + 18
    unused = [n.name for n in plan.cluster.nodes if n.name not in plan.placement]
    if unused:
        y += 20
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        items.append(Text(left, y + 3.8, f"holds no layers: {', '.join(unused[:8])}{more}", 10.5, fill="muted"))
    return Group(tuple(items), role="legend"), y + 18


def _sign(sign: str, x: float, y: float) -> list[Item]:
    if sign == "filling":
        return [
            Rect(x, y - 7, 20, 14, fill="kind0-empty", radius=2),
            Rect(x, y - 2, 20, 9, fill="kind0-full", radius=2),
            Rect(x, y - 7, 20, 14, stroke="kind0", radius=2),
        ]
    if sign == "cut":
        return [Rect(x, y - 7, 20, 14, stroke="cut", stroke_width=2.4, radius=2)]
    line = ((x, y), (x + 6, y), (x + 14, y), (x + 20, y))
    if sign == "entry":
        box = Rect(x, y, 20, 7, fill="band", stroke="muted", radius=2)
        return [
            Curve(((x + 10, y - 8), (x + 10, y - 6), (x + 10, y - 4), (x + 10, y)), "ribbon", 4),
            box,
            Polygon(((x + 6, y), (x + 14, y), (x + 10, y + 5.5)), fill="ink"),
        ]
    curve = Curve(line, sign, 6)
    return list(region_ribbon(curve)) if sign == "far" else [curve]
