"""The cheapest nodes that reach a throughput: the pattern program with prices of nodes.

    min  sum_p c_p y_p    s.t.  sum_p a_pg y_p <= n_g,   sum_p l_p y_p >= L

y_p counts stages of pattern p, which cost c_p, take a_pg nodes of group g and cover l_p layers. At a fixed flow F the
stages to choose from are the cheapest of each length, for node prices between the real ones and prices raised at
random, which stand for how scarce a node is. T(k) depends on the nodes of the cluster, so the chosen nodes are planned
again by themselves, and a little more flow is asked for until the plan reaches F.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import numpy as np
import pyomo.environ as pyo

from helix_kit._deprecation import renamed_keywords
from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.model import Model
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.method import PlanOptions
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.stages import PatternStage, uniform_stages
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import check_names, plan_problem, read_options
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import define_node_supply_constraints
from helix_kit.placement.watch import Progress, Stop, Watch
from helix_kit.profiles import Profile
from helix_kit.typical_request import MeanLengths

MAX_ROUNDS = 8
"""Node sets that are planned for before all nodes are tried."""
SCARCITIES = (0.0, 0.1, 0.3, 1.0)
"""How much a node may count above its price, as a share of the largest price."""
EXTRA = 1.002
"""A set of nodes that misses the flow is chosen again for what was missing and this factor."""

PATIENCE_S = 1.0
"""Planning for a set of nodes ends after this many seconds without a better plan: other sets need the time."""


class Answer(NamedTuple):
    """A plan that reaches the flow, its price, and the solver's bound on the price, in USD per hour."""

    plan: Plan
    price: float
    price_bound: float


@renamed_keywords(time_limit="time_limit_s")
def cheapest(
    cluster: Cluster,
    model: Model,
    tokens_per_s: float,
    *,
    time_limit_s: float = 60.0,
    prices: Mapping[str, float] | None = None,
    profiles: Mapping[str, Profile] | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Plan:
    """A plan on the cheapest nodes of a cluster found that carry a flow.

    Parameters
    ----------
    cluster, model
        The nodes on offer, and what they serve.
    tokens_per_s
        The flow to reach.
    time_limit_s
        Seconds after which the best plan found is returned.
    prices
        USD per hour of each kind of node (``L4``, ``L4x2``). None: the cluster's own prices and the catalogue's.
    profiles
        Measured profiles by kind of machine, which are used in place of the shipped tables.
    stop, progress
        As in `helix_kit.plan`. Values are those of the plan on the nodes chosen last.
    keywords
        ``solver`` (``highs``, ``glpk`` or ``gurobi``) and ``seed``, as in `helix_kit.plan`; and ``lengths``, the
        `MeanLengths` of the requests.

    Returns
    -------
    Plan
        Its cluster holds only the chosen nodes. Its `notes` give the price and a lower bound on it.

    Raises
    ------
    InputError
        For a wrong option, or a kind of node without a price.
    InfeasibleError
        When all nodes together do not reach the flow.

    Examples
    --------
    >>> cluster = Cluster.model_validate({"name": "ten", "nodes": [{"gpu": "L4", "count": 10}]})
    >>> plan = cheapest(cluster, Model.preset("llama-30b"), 250.0)
    >>> len(plan.cluster.nodes) < 10, plan.flow_tokens_per_s >= 250.0
    (True, True)
    """
    if not 0 < tokens_per_s < inf:
        raise InputError("expected a positive number of tokens/s", field="tokens_per_s", value=tokens_per_s)
    check_names(keywords, ("solver", "seed", "lengths"), "of `cheapest`")
    lengths: MeanLengths | None = keywords.pop("lengths", None)
    options = read_options({**keywords, "time_limit_s": time_limit_s})
    problem = Problem.of(cluster, model, profiles, lengths)
    groups = groups_of(problem)
    price = [_price(g.kind, prices, cluster) for g in groups]
    watch = Watch(options.time_limit_s, stop=stop)

    def time_left() -> PlanOptions:
        return replace(options, time_limit_s=max(1.0, watch.left_s), patience_s=PATIENCE_S)

    answer: Answer | None = None
    target = tokens_per_s
    for _ in range(MAX_ROUNDS):
        chosen = _choose(problem, groups, price, target, options, watch)
        if chosen is None or watch.is_over():
            break
        part = cluster.subset(chosen.names, f"{cluster.name}-cheapest")
        plan = plan_problem(Problem.of(part, model, profiles, lengths), time_left(), stop=stop, progress=progress)
        if plan.flow_tokens_per_s >= tokens_per_s * (1 - 1e-6):
            cost = sum(_price(part.node(n).kind, prices, cluster) for n in chosen.names)
            answer = Answer(plan, cost, chosen.price_bound)
            break
        # Other nodes have another T(k): more is asked for, by what was missing.
        target *= tokens_per_s / plan.flow_tokens_per_s * EXTRA
    if answer is None:
        whole = plan_problem(problem, time_left(), stop=stop)
        if whole.flow_tokens_per_s < tokens_per_s:
            raise InfeasibleError(
                f"all of cluster {cluster.name} reaches {whole.flow_tokens_per_s:.1f} tokens/s "
                f"(at most {whole.bound_tokens_per_s:.1f}), not {tokens_per_s:g}",
                fix=f"ask for at most {int(whole.flow_tokens_per_s)} tokens/s, or offer more nodes",
            )
        answer = Answer(whole, sum(p * g.size for p, g in zip(price, groups)), 0.0)
    plan, cost, bound = answer
    # Machines without flow are not paid for.
    used = [n for n in plan.cluster.nodes if plan.max_flow.through(n.name) > 0]
    cost = min(cost, sum(_price(n.kind, prices, cluster) for n in used))
    note = f"price {cost:.2f} USD/h; by this method's stages at least {bound:.2f} USD/h at the whole cluster's T(k)"
    return plan.model_copy(update={"notes": (*plan.notes, note)})


def _price(kind: str, prices: Mapping[str, float] | None, cluster: Cluster) -> float:
    if prices is not None:
        if kind not in prices:
            raise InputError("expected a price for every kind of node", field="prices", value=kind)
        return prices[kind]
    node = next(n for n in cluster.nodes if n.kind == kind)
    price = cluster.usd_per_hour(node)
    if price is None:
        expected = "no price is known for it: expected one under the cluster's `prices`, or in `prices` of the call"
        raise InputError(expected, where=f"cluster {cluster.name}", field="gpu", value=node.gpu)
    return price


class Chosen(NamedTuple):
    """Names of the nodes whose stages carry the flow, and the solver's bound on their price in USD per hour."""

    names: list[str]
    price_bound: float


def _choose(
    problem: Problem,
    groups: Sequence[Group],
    price: Sequence[float],
    target: float,
    options: PlanOptions,
    watch: Watch,
) -> Chosen | None:
    """The cheapest nodes whose stages carry `target` tokens/s; None when the solver finds none in time."""
    layers = problem.num_layers
    pricing = StagePricing(groups, target, layers)
    pool = {s.lanes: s for s in uniform_stages(groups, target)}
    max_price = max(price)
    rng = np.random.default_rng(options.seed)
    for scarcity in SCARCITIES:
        for _ in range(4):
            duals = np.array(price) + scarcity * max_price * rng.random(len(groups)) + 1e-9
            for stage in pricing.cheapest(duals):
                pool.setdefault(stage.lanes, stage)
    stages = list(pool.values())
    if not stages:  # No stage of all these nodes carries as much.
        return None
    model = pyo.ConcreteModel("cheapest")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    model.price = pyo.Objective(expr=sum(_cost(s, price) * model.count[p] for p, s in enumerate(stages)))
    model.all_layers = pyo.Constraint(expr=sum(s.length * model.count[p] for p, s in enumerate(stages)) >= layers)
    define_node_supply_constraints(model, [s.uses for s in stages], [group.size for group in groups])
    settings = SolverSettings(options.solver, time_limit_s=min(10.0, watch.left_s), seed=options.seed, mip_gap=1e-4)
    solution = solve_model(model, settings)
    if solution.value is None:
        return None
    names: list[str] = []
    for g, group in enumerate(groups):
        used = sum(s.uses[g] * round(model.count[p].value) for p, s in enumerate(stages))
        names += group.nodes[:used]
    return Chosen(names, solution.bound or 0.0)


def _cost(stage: PatternStage, price: Sequence[float]) -> float:
    return sum(n * p for n, p in zip(stage.uses, price))


__all__ = ["cheapest"]
