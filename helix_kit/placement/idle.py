"""Machines that a plan leaves out: which they are, why, and what the others cost."""

from __future__ import annotations

from helix_kit._summary import number
from helix_kit.cluster import COORDINATOR, UNCONNECTED_GBPS
from helix_kit.flow import Flow
from helix_kit.placement.problem import Problem

ENOUGH_SHARE = 0.1
"""A machine whose links carry less than this share of its speed with all the layers that it holds is cut off."""


MAX_NAMED = 6
"""Of a group of more machines the first are named, and the others counted."""


def idle_notes(
    problem: Problem, flow: Flow, judged_by: str = "by the simulations made", *, otherwise: str | None = None
) -> list[str]:
    """A sentence for each kind of machine in each region that the plan leaves out, and the price of the others.

    `judged_by` says how plans were compared, for the reason that is given where memory and links tell none. `otherwise`
    is that reason in other words, with ``{them}`` for the machines.
    """
    used = {end for edge in flow.edges for end in edge if end != COORDINATOR}
    idle = [n for n in problem.cluster.nodes if n.name not in used]
    groups: dict[tuple[str, str], list[str]] = {}
    for node in idle:
        groups.setdefault((problem.kind_of[node.name], problem.cluster.region_of(node.name)), []).append(node.name)
    notes = [
        f"not used: {_names(names)} ({_reason(problem, names, used, judged_by, otherwise)})"
        for (_, _), names in sorted(groups.items())
    ]
    if idle:
        notes += _price(problem, used)
    return notes


def _names(names: list[str]) -> str:
    shown = names if len(names) <= MAX_NAMED else [*names[: MAX_NAMED - 1], f"{len(names) - MAX_NAMED + 1} more"]
    return ", ".join(shown)


def _reason(problem: Problem, names: list[str], used: set[str], judged_by: str, otherwise: str | None) -> str:
    """Why machines that are alike stay idle, as far as the memory and the links of the first tell."""
    name, is_one = names[0], len(names) == 1
    it, its, them = ("it", "its", "it") if is_one else ("each", "their", "them")
    layers = problem.max_layers(name)
    if layers < 1:
        return f"{its} memory does not hold one layer of {problem.model.name}"
    cluster = problem.cluster
    speed = problem.throughput(name, layers)
    ends = [COORDINATOR] if layers == problem.num_layers else [n for n in sorted(used) if n != name]
    link_tokens_per_s = max((problem.link_capacity(end, name) for end in ends), default=0.0)
    if link_tokens_per_s < ENOUGH_SHARE * speed:
        best = max(ends, key=lambda end: problem.link_capacity(end, name))
        gbps = cluster.link(best, name).bandwidth_gbps
        if gbps <= UNCONNECTED_GBPS:
            return f"no link connects {them} with those in use"
        needed = number(float(f"{gbps * ENOUGH_SHARE * speed / link_tokens_per_s:.2g}"))
        return (
            f"{its} fastest link to the others has {number(gbps)} gbps and carries {number(link_tokens_per_s)} of the "
            f"{speed:,.0f} tokens/s that {it} computes: {it} would need {needed} gbps"
        )
    if otherwise is not None:
        return otherwise.replace("{them}", them)
    if layers < problem.num_layers:
        return (
            f"{it} holds {layers} of {problem.num_layers} layers: a pipeline through "
            f"{'it' if is_one else 'one of them'} takes one more hop and serves no more, {judged_by}"
        )
    return f"the plans tried with {them} are no better, {judged_by}"


def _price(problem: Problem, used: set[str]) -> list[str]:
    """The price of the machines in use, where all their prices are known."""
    nodes = [n for n in problem.cluster.nodes if n.name in used]
    prices = {n.gpu: problem.cluster.gpu(n.gpu).price_usd_per_hour for n in nodes}
    if not nodes or any(price is None for price in prices.values()):
        return []
    usd = sum((prices[n.gpu] or 0.0) * n.gpus_per_node for n in nodes)
    return [f"the machines in use cost {usd:.2f} USD an hour; those that are not used may be given up"]
