"""Numbers and short sentences about a plan, as pictures and widgets print them."""

from __future__ import annotations

from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan


def number(value: float) -> str:
    """Three significant digits below 100, whole with thousands separators above."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def percent(share: float) -> str:
    """A gap as a percentage that keeps small gaps apart from none."""
    if share == float("inf"):
        return "∞"
    return f"{share:.0%}" if share >= 0.095 else f"{share:.2%}" if share >= 5e-5 else "0 %".replace(" ", "")


def counted(count: int, noun: str) -> str:
    """``1 pipeline``, ``5 pipelines``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def edge_words(edge: Edge) -> str:
    """A node by its name, a link by its ends."""
    source, target = edge
    return source if source == target else f"link {source} → {target}"


def listed(names: list[str], at_most: int = 4) -> str:
    """``a, b and c``, with the rest counted."""
    if len(names) > at_most:
        names = [*names[: at_most - 1], f"{len(names) - at_most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def limited_by(plan: Plan) -> str:
    """What limits the flow, in a line; empty when nothing flows."""
    if plan.flow_tokens_per_s <= 0:
        return "no pipeline covers all layers"
    return f"limited by {listed([edge_words(edge) for edge in plan.max_flow.min_cut])}"


def summary(plan: Plan) -> str:
    """Method, bound, machines used and pipelines, in a line."""
    parts = [plan.method]
    if plan.flow_tokens_per_s > 0:
        parts.append(f"bound {number(plan.bound_tokens_per_s)} (gap {percent(plan.gap)})")
    served = (plan.served or {}).get("decode_tokens_per_s")
    if served:
        parts.append(f"serves {number(served)} (simulated)")
    carrying = {name for pair in plan.flow_edges for name in pair} & set(plan.placement)
    parts.append(f"{len(carrying)} of {len(plan.cluster.nodes)} machines carry flow")
    if plan.pipelines:
        depths = sorted({len(stages) for stages, _ in plan.pipelines})
        span = str(depths[0]) if len(depths) == 1 else f"{depths[0]}–{depths[-1]}"
        parts.append(f"{counted(len(plan.pipelines), 'pipeline')} of {span} stages")
    return " · ".join(parts)
