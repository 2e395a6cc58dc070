"""The paper's mixed-integer program (Helix, section 4.4), with a function for each family of constraints.

The variables are, for node i, its first layer s_i and whether it holds k layers (b_ik), and for each link (i, j) its
flow f_ij in tokens/s and whether it is used (d_ij). Node i holds the layers [s_i, e_i) with e_i = s_i + sum_k k b_ik.
The numbers of rows and columns are those of the published solver logs (experiment `problem-sizes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyomo.environ as pyo

from helix_kit.cluster import COORDINATOR
from helix_kit.flow import Edge, Flow, can_follow
from helix_kit.placement.problem import Problem


@dataclass(frozen=True)
class ProblemSize:
    """Numbers of rows and columns of a program, as solver logs report them."""

    constraints: int
    variables: int
    continuous: int
    integer: int
    """Integer variables that are not binary."""
    binary: int


def build(
    problem: Problem,
    *,
    partial_inference: bool = True,
    degree: int | None = None,
    cap_tokens_per_s: float | None = None,
) -> pyo.ConcreteModel:
    """Build the paper's program.

    Parameters
    ----------
    partial_inference
        Whether a request may enter a node's range after its first layer.
    degree
        Keep only links that are among the `degree` fastest of either end (the paper's pruning). None: all links.
    cap_tokens_per_s
        A proven bound on the flow. Throughputs and link capacities above it are cut down to it. This makes the
        relaxation far tighter and changes no optimum. None: the paper's own coefficients.

    Returns
    -------
    pyomo.environ.ConcreteModel
        The program. `read_placement` reads its solution.

    Examples
    --------
    >>> from helix_kit.cluster import Cluster
    >>> from helix_kit.model import Model
    >>> cluster = Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
    >>> program = build(Problem.of(cluster, Model.preset("llama2-70b").model_copy(update={"num_layers": 8})))
    >>> sorted(program.links)[:3]
    [('L4-0', 'L4-1'), ('L4-0', 'coordinator'), ('L4-1', 'L4-0')]
    """
    model = pyo.ConcreteModel("helix")
    nodes = [n.name for n in problem.cluster.nodes if problem.max_layers(n.name) > 0]
    links = usable_links(problem, nodes, degree)
    model.num_layers = problem.num_layers
    model.partial_inference = partial_inference
    cap = float("inf") if cap_tokens_per_s is None else cap_tokens_per_s
    model.nodes = pyo.Set(initialize=nodes)
    model.sizes = pyo.Set(initialize=[(n, k) for n in nodes for k in range(1, problem.longest_range(n) + 1)])
    model.links = pyo.Set(initialize=links)
    model.inner_links = pyo.Set(initialize=[link for link in links if COORDINATOR not in link])
    define_variables(model)
    define_placement_constraints(model)
    define_flow_conservation_constraints(model)
    if problem.is_uniform:
        define_node_throughput_constraints(model, problem, cap)
    else:
        define_range_throughput_constraints(model, problem, cap)
    define_connection_validity_constraints(model)
    define_link_capacity_constraints(model, problem, cap)
    define_objective(model, cap)
    return model


def usable_links(problem: Problem, nodes: list[str], degree: int | None = None) -> list[Edge]:
    """All links between nodes and to and from the coordinator; with `degree`, only the fastest of each end."""
    ends = [COORDINATOR, *nodes]
    pairs = [(a, b) for a in ends for b in ends if a != b]
    if degree is None:
        return pairs
    speed = {pair: problem.cluster.link(*pair).bandwidth_gbps for pair in pairs}
    kept: set[Edge] = set()
    # Among links of equal speed the later node's are kept. With the earlier node's, geo24 has two links fewer than
    # published.
    backwards = pairs[::-1]
    for end in ends:
        outgoing = sorted((p for p in backwards if p[0] == end), key=lambda p: -speed[p])
        incoming = sorted((p for p in backwards if p[1] == end), key=lambda p: -speed[p])
        if end == COORDINATOR:
            kept.update(outgoing[:degree], incoming[:degree])
        else:
            kept.update([p for p in outgoing if p[1] != COORDINATOR][:degree])
            kept.update([p for p in incoming if p[0] != COORDINATOR][:degree])
    return [p for p in pairs if p in kept]


def define_variables(model: pyo.ConcreteModel) -> None:
    """The variables s, b, f and d of the paper's table 4, and the expression e_i for the end of a node's range."""
    model.start = pyo.Var(model.nodes, domain=pyo.NonNegativeIntegers, bounds=(0, model.num_layers - 1))
    model.holds = pyo.Var(model.sizes, domain=pyo.Binary)
    model.flow = pyo.Var(model.links, domain=pyo.NonNegativeReals)
    model.used = pyo.Var(model.links, domain=pyo.Binary)

    def end(m: Any, node: str) -> Any:
        return m.start[node] + sum(k * m.holds[n, k] for n, k in m.sizes if n == node)

    model.end = pyo.Expression(model.nodes, rule=end)


def define_placement_constraints(model: pyo.ConcreteModel) -> None:
    """Each node holds one range within the model (constraint group 1): sum_k b_ik = 1 and e_i <= L."""
    sizes: dict[str, list[int]] = {}
    for node, k in model.sizes:
        sizes.setdefault(node, []).append(k)
    model.one_size = pyo.Constraint(model.nodes, rule=lambda m, n: sum(m.holds[n, k] for k in sizes[n]) == 1)
    model.within_model = pyo.Constraint(model.nodes, rule=lambda m, n: m.end[n] <= m.num_layers)


def define_flow_conservation_constraints(model: pyo.ConcreteModel) -> None:
    """What enters a node leaves it (constraint group 2): sum_j f_ji = sum_j f_ij."""
    into, out_of = _ends(model)
    model.conservation = pyo.Constraint(
        model.nodes,
        rule=lambda m, n: sum(m.flow[e] for e in into.get(n, [])) == sum(m.flow[e] for e in out_of.get(n, [])),
    )


def define_node_throughput_constraints(model: pyo.ConcreteModel, problem: Problem, cap: float) -> None:
    """A node carries at most T(k) with the k layers it holds (constraint group 3): sum_j f_ji <= sum_k T_i(k) b_ik."""
    into, _ = _ends(model)
    tables = {n: [min(problem.throughput(n, k), cap) for k in range(1, problem.max_layers(n) + 1)] for n in model.nodes}
    model.node_throughput = pyo.Constraint(
        model.nodes,
        rule=lambda m, n: (
            sum(m.flow[e] for e in into.get(n, [])) <= sum(t * m.holds[n, k] for k, t in enumerate(tables[n], 1))
        ),
    )


def define_range_throughput_constraints(model: pyo.ConcreteModel, problem: Problem, cap: float) -> None:
    """Group 3 where layers differ: a binary variable for each range [s, e) that a node can hold, of which it has one.

    It decides start and size, so a node carries at most sum_(s, e) T_i(s, e) r_ise.
    """
    into, _ = _ends(model)
    layers = problem.num_layers
    ranges = [(n, s, s + k) for n, k in model.sizes for s in range(layers - k + 1) if problem.fits(n, s, s + k)]
    of_node: dict[str, list[tuple[int, int]]] = {}
    for n, s, e in ranges:
        of_node.setdefault(n, []).append((s, e))
    model.ranges = pyo.Set(initialize=ranges)
    model.has_range = pyo.Var(model.ranges, domain=pyo.Binary)
    model.range_start = pyo.Constraint(
        model.nodes, rule=lambda m, n: m.start[n] == sum(s * m.has_range[n, s, e] for s, e in of_node[n])
    )
    model.range_size = pyo.Constraint(
        model.sizes,
        rule=lambda m, n, k: m.holds[n, k] == sum(m.has_range[n, s, e] for s, e in of_node[n] if e - s == k),
    )
    model.node_throughput = pyo.Constraint(
        model.nodes,
        rule=lambda m, n: (
            sum(m.flow[e] for e in into.get(n, []))
            <= sum(min(problem.range_throughput(n, s, e), cap) * m.has_range[n, s, e] for s, e in of_node[n])
        ),
    )


def define_connection_validity_constraints(model: pyo.ConcreteModel) -> None:
    """A link is used only if the receiver holds the layer that comes next (constraint group 4).

    For a link in use, s_j <= e_i < e_j with partial inference, or s_j = e_i without. For links from and to the
    coordinator, s_j = 0 and e_i = L. For a link that is not in use, each row is relaxed by L or L + 1.
    """
    layers, partial = model.num_layers, model.partial_inference

    def not_after(m: Any, i: str, j: str) -> Any:
        return m.start[j] - m.end[i] <= layers * (1 - m.used[i, j])

    def not_before(m: Any, i: str, j: str) -> Any:
        if partial:
            return m.end[i] + 1 - m.end[j] <= (layers + 1) * (1 - m.used[i, j])
        return m.end[i] - m.start[j] <= layers * (1 - m.used[i, j])

    model.starts_in_time = pyo.Constraint(model.inner_links, rule=not_after)
    model.goes_further = pyo.Constraint(model.inner_links, rule=not_before)
    sources = [j for i, j in model.links if i == COORDINATOR]
    sinks = [i for i, j in model.links if j == COORDINATOR]
    model.first_layer = pyo.Constraint(sources, rule=lambda m, j: m.start[j] <= layers * (1 - m.used[COORDINATOR, j]))
    model.last_layer = pyo.Constraint(sinks, rule=lambda m, i: layers * m.used[i, COORDINATOR] <= m.end[i])


def define_link_capacity_constraints(model: pyo.ConcreteModel, problem: Problem, cap: float) -> None:
    """A link carries at most its capacity, and nothing unless it is used (constraint group 5): f_ij <= c_ij d_ij."""
    model.link_capacity = pyo.Constraint(
        model.links,
        rule=lambda m, i, j: m.flow[i, j] <= min(problem.link_capacity(i, j), cap) * m.used[i, j],
    )


def define_objective(model: pyo.ConcreteModel, cap: float) -> None:
    """The objective, all flow from the coordinator. A finite `cap` on it is one more row."""
    total = sum(model.flow[e] for e in model.links if e[0] == COORDINATOR)
    model.total_flow = pyo.Objective(expr=total, sense=pyo.maximize)
    if cap < float("inf"):
        model.proven_bound = pyo.Constraint(expr=total <= cap)


def _ends(model: pyo.ConcreteModel) -> tuple[dict[str, list[Edge]], dict[str, list[Edge]]]:
    """The links into and out of each end."""
    into: dict[str, list[Edge]] = {}
    out_of: dict[str, list[Edge]] = {}
    for i, j in model.links:
        out_of.setdefault(i, []).append((i, j))
        into.setdefault(j, []).append((i, j))
    return into, out_of


def set_initial_values(model: pyo.ConcreteModel, placement: Mapping[str, tuple[int, int]], flow: Flow) -> None:
    """Set the variables to a placement and its flow, as the first incumbent. Nodes not placed hold layer 0, unused."""
    spans = {n: placement.get(n, (0, 1)) for n in model.nodes}
    for n in model.nodes:
        model.start[n] = spans[n][0]
    for n, k in model.sizes:
        model.holds[n, k] = int(spans[n][1] - spans[n][0] == k)
    if model.find_component("ranges") is not None:
        for n, s, e in model.ranges:
            model.has_range[n, s, e] = int(spans[n] == (s, e))
    for i, j in model.links:
        amount = flow.edges.get((i, j), 0.0)
        valid = _follows(spans, i, j, model.num_layers, model.partial_inference)
        model.flow[i, j] = amount if valid else 0.0
        model.used[i, j] = int(amount > 0 and valid)


def _follows(
    spans: Mapping[str, tuple[int, int]], source: str, target: str, num_layers: int, partial_inference: bool
) -> bool:
    """Whether the placement allows flow on a link."""
    if source == COORDINATOR:
        return spans[target][0] == 0
    if target == COORDINATOR:
        return spans[source][1] == num_layers
    return can_follow(spans[source][1], spans[target], partial_inference)


def read_placement(model: pyo.ConcreteModel) -> dict[str, tuple[int, int]]:
    """The placement of a solved program: the nodes that carry flow, with their ranges."""
    into, _ = _ends(model)
    placement = {}
    for n in model.nodes:
        if sum(model.flow[e].value or 0.0 for e in into.get(n, [])) > 1e-6:
            start = round(model.start[n].value)
            size = next(k for m, k in model.sizes if m == n and round(model.holds[n, k].value) == 1)
            placement[n] = (start, start + size)
    return placement


def size_of(model: pyo.ConcreteModel) -> ProblemSize:
    """Numbers of rows and columns of a program."""
    variables = list(model.component_data_objects(pyo.Var))
    binary = sum(v.is_binary() for v in variables)
    integer = sum(v.is_integer() and not v.is_binary() for v in variables)
    rows = sum(1 for _ in model.component_data_objects(pyo.Constraint, active=True))
    return ProblemSize(rows, len(variables), len(variables) - binary - integer, integer, binary)
