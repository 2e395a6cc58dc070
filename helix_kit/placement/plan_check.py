"""Whether a plan read from a file fits together: placement, flow and values belong to its cluster, model and profiles.

A plan carries the problem that it solves, so everything that follows from the placement can be worked out again. A file
that was edited by hand, put together from two others, or cut off in the middle of a number is refused with the field,
its value and what was expected, rather than served with a flow that its machines cannot carry.

A file has a checksum over the fields that belong together. While it matches, nothing has been edited and nothing is
worked out again: the plan may have throughputs of its author's own (see `helix_kit.placement.planner.plan_problem`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import networkx as nx

from helix_kit import _files
from helix_kit.cluster import COORDINATOR, Cluster
from helix_kit.errors import HelixKitError, InputError
from helix_kit.flow import MILLI, Edge, build_flow_graph, max_flow
from helix_kit.model import Model
from helix_kit.placement.problem import Problem
from helix_kit.placement.served import Served
from helix_kit.profiles import Profile
from helix_kit.typical_request import MeanLengths

TOLERANCE = 1e-6
"""Relative difference up to which two values are equal: files may have been written on another machine."""
DERIVED = ("flow", "flow_tokens_per_s", "bound_tokens_per_s", "gap", "node_throughput_tokens_per_s")
"""Fields that follow from the others. A file may leave them out; they are then worked out when it is read."""
CHECKSUM = "checksum"
"""Field of a file that is no field of a plan: the digest of the fields below."""
TOGETHER = ("cluster", "model", "profiles", "placement", "lengths", "partial_inference",
            "node_throughput_tokens_per_s", "bounds", *DERIVED)  # fmt: skip
Refuse = Callable[[str, object, str], InputError]
"""Makes the error for a field, its value, and what was expected."""
HINT = f"; leave out {', '.join(DERIVED)} to have them computed"


class PlanFields(Protocol):
    """What is read of a `helix_kit.placement.plan.Plan`, which itself calls the checks."""

    cluster: Cluster
    model: Model
    profiles: dict[str, Profile]
    placement: dict[str, tuple[int, int]]
    lengths: MeanLengths
    partial_inference: bool
    node_throughput_tokens_per_s: dict[str, float]
    flow: tuple[tuple[str, str, float], ...]
    flow_tokens_per_s: float
    bound_tokens_per_s: float
    bounds: dict[str, float]
    gap: float
    served: Served | None

    @property
    def problem(self) -> Problem:
        """The problem that the plan solves."""

    @property
    def flow_edges(self) -> dict[Edge, float]:
        """Flow in tokens/s on each link in use."""


def checksum_of(data: Mapping[str, Any]) -> str:
    """The checksum of a plan given as plain data, whatever the order of its fields and the layout of its file."""
    # Files from before `lengths` have a checksum without it.
    together = {name: data.get(name) for name in sorted(set(TOGETHER)) if name != "lengths" or name in data}
    return hashlib.sha256(json.dumps(together, sort_keys=True).encode()).hexdigest()[:16]


def is_unedited(data: Mapping[str, Any]) -> bool:
    """Whether plain data read from a file have the checksum with which they were written."""
    return CHECKSUM in data and data[CHECKSUM] == checksum_of(data)


def check_names(plan: PlanFields) -> None:
    """Raise ValueError, as a validator does, when a field names what cluster or model do not have."""
    names = {n.name for n in plan.cluster.nodes}
    for name, (start, end) in plan.placement.items():
        if name not in names:
            raise ValueError(f"placement: {_files.unknown('node', name, names)}")
        if not 0 <= start < end <= plan.model.num_layers:
            raise ValueError(f"placement.{name} = {[start, end]}: expected 0 <= start < end <= {plan.model.num_layers}")
    for kind in plan.cluster.kind_counts:
        if kind not in plan.profiles:
            raise ValueError(f"profiles: no profile for {kind}")
    for source, target, rate in plan.flow:
        if not {source, target} <= names | {COORDINATOR} or rate < 0:
            raise ValueError(f"flow: [{source}, {target}, {rate}] is not a link of the cluster with a rate >= 0")


def check_plan(plan: PlanFields, where: object, *, has_checksum: bool) -> None:
    """Raise InputError for the first field of a plan that contradicts the others.

    Parameters
    ----------
    plan
        The fields have been validated one by one.
    where
        The file, for the message.
    has_checksum
        Whether the file has a checksum, which does not match: then it was edited. A file without one may be older, and
        have throughputs of its author's own. These are taken as they are if no node has that of its profile.
    """
    check_problem(plan, where)
    refuse = _refusal(where)
    problem, placement = plan.problem, plan.placement
    expected = problem.node_throughput(placement)
    given = plan.node_throughput_tokens_per_s
    if set(given) != set(expected):
        name = min(set(given) ^ set(expected))
        what = "the node is not in `placement`" if name in given else "missing field"
        raise refuse(f"node_throughput_tokens_per_s.{name}", given.get(name), f"{what}{HINT}")
    own = not has_checksum and not any(_is_close(given[name], value) for name, value in expected.items())
    for name, value in expected.items():
        if not (_is_close(given[name], value) or own):
            layers = list(placement[name])
            raise refuse(
                f"node_throughput_tokens_per_s.{name}", given[name], f"expected {value:.6g} with layers {layers}{HINT}"
            )
    _check_flow(plan, refuse)
    _check_bound(plan, refuse)


def _refusal(where: object) -> Refuse:
    """Makes the error for a field, its value and what was expected."""
    return lambda field, value, expected: InputError(expected, where=where, field=field, value=value)


def check_problem(plan: PlanFields, where: object) -> None:
    """Raise InputError when the profiles are another model's, or no request can pass all layers."""
    refuse = _refusal(where)
    for kind, profile in plan.profiles.items():
        if profile.model != plan.model.name:
            raise refuse(f"profiles.{kind}.model", profile.model, f"expected {plan.model.name!r}, the plan's model")
        if profile.kind != kind:
            raise refuse(f"profiles.{kind}.kind", profile.kind, f"expected {kind!r}")
    if not plan.placement:
        raise refuse("placement", None, "expected the layer range of at least one node")
    if missing := _holes(plan.placement.values(), plan.model.num_layers):
        ranges = ", ".join(f"[{start}, {end})" for start, end in missing)
        raise refuse("placement", None, f"no node holds layers {ranges} of {plan.model.name}'s {plan.model.num_layers}")
    try:
        _ = plan.problem
    except HelixKitError as error:  # such as a model that is too large for the cluster
        raise refuse("placement", None, str(error)) from None


def _holes(spans: Iterable[tuple[int, int]], num_layers: int) -> list[tuple[int, int]]:
    """The layer ranges that no span covers.

    >>> _holes([(0, 4), (6, 8)], 10)
    [(4, 6), (8, 10)]
    """
    reached, holes = 0, []
    for start, end in sorted(spans):
        if start > reached:
            holes.append((reached, start))
        reached = max(reached, end)
    return [*holes, (reached, num_layers)] if reached < num_layers else holes


def _check_flow(plan: PlanFields, refuse: Refuse) -> None:
    """The links exist, nothing carries more than it can, what enters a node leaves it, and the sum is the value."""
    usable, capacity = _capacities(plan, plan.flow_edges)
    throughput = plan.node_throughput_tokens_per_s
    inflow, outflow = dict.fromkeys([*throughput, COORDINATOR], 0.0), dict.fromkeys([*throughput, COORDINATOR], 0.0)
    if len(plan.flow_edges) < len(plan.flow):
        twice = next(edge for edge in plan.flow_edges if sum(edge == (a, b) for a, b, _ in plan.flow) > 1)
        raise refuse("flow", list(twice), "expected every link once")
    for (source, target), rate in plan.flow_edges.items():
        entry = [source, target, rate]
        if (source, target) not in usable:
            spans = " and ".join(f"{n} holds {list(plan.placement[n])}" for n in entry[:2] if n in plan.placement)
            raise refuse("flow", entry, f"requests cannot take this link ({spans or 'no node'}){HINT}")
        if not rate <= _above(capacity[source, target]):
            raise refuse(
                "flow", entry, f"expected at most {capacity[source, target]:.6g}, which the link carries{HINT}"
            )
        outflow[source] += rate
        inflow[target] += rate
    for name in throughput:
        if not _is_close(inflow[name], outflow[name]):
            raise refuse(
                "flow", name, f"{inflow[name]:.6g} tokens/s enter this node and {outflow[name]:.6g} leave it{HINT}"
            )
        if not inflow[name] <= _above(capacity[name, name]):
            expected = f"expected at most {capacity[name, name]:.6g} tokens/s through this node, not {inflow[name]:.6g}"
            raise refuse("flow", name, f"{expected}{HINT}")
    value = plan.flow_tokens_per_s
    if not _is_close(outflow[COORDINATOR], value):
        raise refuse("flow_tokens_per_s", value, f"expected {outflow[COORDINATOR]:.6g}, the sum of `flow`{HINT}")
    if plan.served is not None and plan.served.ease:
        return  # The flow spares slow kinds of machine on purpose.
    largest = _largest_on_used_links(plan)
    if largest > _above(value):
        raise refuse(
            "flow_tokens_per_s", value, f"expected {largest:.6g}, the maximum flow over the links in use{HINT}"
        )


def _capacities(plan: PlanFields, links: Iterable[Edge]) -> tuple[set[Edge], dict[Edge, float]]:
    """The links that requests can take, of those given, and capacities in tokens/s; (node, node) is a node's own."""
    graph = _graph(plan, links)
    capacity = {edge: c / MILLI for _, _, edge, c in _rows(graph)}
    return set(capacity), capacity


def _largest_on_used_links(plan: PlanFields) -> float:
    """The maximum flow over the links that the plan uses.

    Methods may keep requests to some links, as separate pipelines do, so links without flow are left out. What a
    network card carries depends on all links, so the capacities are those of the whole graph.
    """
    graph = _graph(plan, None)
    used = plan.flow_edges
    graph.remove_edges_from([(a, b) for a, b, edge, _ in list(_rows(graph)) if edge[0] != edge[1] and edge not in used])
    return max_flow(graph).tokens_per_s


def _graph(plan: PlanFields, links: Iterable[Edge] | None) -> nx.DiGraph:
    return build_flow_graph(
        plan.problem.cluster,
        plan.model,
        plan.placement,
        plan.node_throughput_tokens_per_s,
        partial_inference=plan.partial_inference,
        links=links,
        passes_per_token=plan.problem.passes_per_token,
    )


def _rows(graph: nx.DiGraph) -> Iterable[tuple[object, object, Edge, int]]:
    return ((a, b, data["edge"], data["capacity"]) for a, b, data in graph.edges(data=True))


def _check_bound(plan: PlanFields, refuse: Refuse) -> None:
    value, bound = plan.flow_tokens_per_s, plan.bound_tokens_per_s
    if not 0 <= bound < math.inf:
        raise refuse("bound_tokens_per_s", bound, "expected a finite number of at least 0")
    if plan.bounds:
        least = min(plan.bounds.values())
        # A served plan may carry more than the bound of the search for the most flow says, by rounding.
        if not (_is_close(bound, least) or _is_close(bound, max(least, value))):
            raise refuse("bound_tokens_per_s", bound, f"expected {least:.6g}, the least of `bounds`{HINT}")
    gap = max(0.0, bound - value) / value if value > 0 else math.inf
    if not (plan.gap == gap or _is_close(plan.gap, gap)):
        raise refuse("gap", plan.gap, f"expected {gap:.6g}, which is (bound - flow) / flow{HINT}")


def _above(value: float) -> float:
    """The largest value that counts as `value`: flows are counted in whole milli-tokens/s."""
    return value * (1 + TOLERANCE) + 1 / MILLI


def _is_close(a: float, b: float) -> bool:
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) + 1e-9
