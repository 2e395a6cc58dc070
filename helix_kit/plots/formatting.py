"""Numbers and short sentences about a plan, as pictures and widgets print them."""

from __future__ import annotations

from helix_kit._wording import count_text, join_names
from helix_kit.flow import Edge
from helix_kit.placement.plan import Plan


def format_number(value: float) -> str:
    """Three significant digits below 100; above, a whole number with thousands separators.

    >>> format_number(2045.6), format_number(12.345), format_number(0)
    ('2,046', '12.3', '0')
    """
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def format_percent(share: float) -> str:
    """A share as a percentage, with two decimals below 10 % so that a small gap does not read as none.

    >>> format_percent(0.25), format_percent(0.0312), format_percent(0.00001), format_percent(float("inf"))
    ('25%', '3.12%', '0%', '∞')
    """
    if share == float("inf"):
        return "∞"
    if share >= 0.095:
        return f"{share:.0%}"
    return f"{share:.2%}" if share >= 5e-5 else "0%"


def edge_name(edge: Edge) -> str:
    """The node's name for the edge inside a node, both ends for a link.

    >>> edge_name(("a", "a")), edge_name(("a", "b"))
    ('a', 'link a → b')
    """
    source, target = edge
    return source if source == target else f"link {source} → {target}"


def limit_text(plan: Plan) -> str:
    """What limits the flow of a plan, in one line."""
    if plan.flow_tokens_per_s <= 0:
        return "no pipeline covers all layers"
    return f"limited by {join_names([edge_name(edge) for edge in plan.max_flow.min_cut])}"


def plan_summary(plan: Plan) -> str:
    """Method, bound, machines with flow and pipelines of a plan, in one line."""
    facts = [plan.method]
    if plan.flow_tokens_per_s > 0:
        facts.append(f"bound {format_number(plan.bound_tokens_per_s)} (gap {format_percent(plan.gap)})")
    if plan.served and plan.served.decode_tokens_per_s:
        how = "simulated" if plan.served.is_simulated else "predicted"
        facts.append(f"serves {format_number(plan.served.decode_tokens_per_s)} ({how})")
    carrying = {name for edge in plan.flow_edges for name in edge} & set(plan.placement)
    facts.append(f"{len(carrying)} of {len(plan.cluster.nodes)} machines carry flow")
    if plan.pipelines:
        depths = sorted({len(stages) for stages, _ in plan.pipelines})
        stages_text = str(depths[0]) if len(depths) == 1 else f"{depths[0]}–{depths[-1]}"
        facts.append(f"{count_text(len(plan.pipelines), 'pipeline')} of {stages_text} stages")
    return " · ".join(facts)
