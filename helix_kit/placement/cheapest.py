"""The cheapest nodes that reach a throughput: the pattern program with prices for nodes.

    min  sum_p c_p y_p    s.t.  sum_p a_pg y_p <= n_g,   sum_p l_p y_p >= L

At a fixed flow F, the stages to choose from are the cheapest of each length for node prices between "what it costs"
and "how scarce it is". T(k) depends on the mix of nodes, so the answer is planned again by itself, and asked for a
little more until it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyomo.environ as pyo

from helix_kit._deprecation import renamed_keywords
from helix_kit.catalogue import gpus
from helix_kit.cluster import Cluster
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.model import Model
from helix_kit.placement.groups import Group, groups_of
from helix_kit.placement.pattern.pricing import StagePricing
from helix_kit.placement.pattern.stages import PatternStage, uniform_stages
from helix_kit.placement.plan import Plan
from helix_kit.placement.planner import plan_problem
from helix_kit.placement.problem import Problem
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import define_node_supply_constraints
from helix_kit.placement.watch import Progress, Stop, Watch
from helix_kit.profiles import Profile

ROUNDS = 8
SCARCITY = (0.0, 0.1, 0.3, 1.0)
"""How much more than its price a node may count, per share of the largest price."""


@renamed_keywords(time_limit="time_limit_s")
def cheapest(
    cluster: Cluster,
    model: Model,
    tokens_per_s: float,
    *,
    prices: Mapping[str, float] | None = None,
    solver: str = "highs",
    time_limit_s: float = 60.0,
    seed: int = 0,
    profiles: Mapping[str, Profile] | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Plan:
    """A plan on the cheapest nodes of `cluster` found that carry `tokens_per_s`.

    Parameters
    ----------
    prices
        USD per hour of each kind of node (``L4``, ``L4x2``); None: the catalogue's.
    profiles
        Measured profiles by kind of machine, which go before the shipped tables.
    stop, progress
        As in `helix_kit.plan`; values are those of the plan on the nodes chosen last.

    The plan's cluster holds only the chosen nodes; `notes` give the price and a lower bound on it. Raises
    InfeasibleError when all nodes together do not reach the flow.
    """
    if not tokens_per_s > 0:
        raise InputError("expected a positive number of tokens/s", field="tokens_per_s", value=tokens_per_s)
    problem = Problem.of(cluster, model, profiles)
    groups = groups_of(problem)
    price = [_price(g.kind, prices, cluster) for g in groups]
    watch = Watch(time_limit_s, stop=stop)
    target, best = tokens_per_s, None
    for _ in range(ROUNDS):
        chosen = _choose(problem, groups, price, target, solver, watch, seed)
        if chosen is None or watch.is_over():
            break
        names, floor = chosen
        part = cluster.subset(names, f"{cluster.name}-cheapest")
        made = plan_problem(
            Problem.of(part, model, profiles), solver=solver, time_limit_s=max(1.0, watch.left_s), seed=seed, stop=stop,
            progress=progress,
        )  # fmt: skip
        if made.flow_tokens_per_s >= tokens_per_s * (1 - 1e-6):
            best = (made, sum(_price(part.node(n).kind, prices, cluster) for n in names), floor)
            break
        # The mix of fewer nodes has another T(k): ask for as much more as was missing.
        target *= tokens_per_s / made.flow_tokens_per_s * 1.002
    if best is None:
        whole = plan_problem(problem, solver=solver, time_limit_s=max(1.0, watch.left_s), seed=seed, stop=stop)
        if whole.flow_tokens_per_s < tokens_per_s:
            raise InfeasibleError(
                f"all of cluster {cluster.name} reaches {whole.flow_tokens_per_s:.1f} tokens/s "
                f"(at most {whole.bound_tokens_per_s:.1f}), not {tokens_per_s:g}",
                fix=f"ask for at most {int(whole.flow_tokens_per_s)} tokens/s, or offer more nodes",
            )
        best = (whole, sum(p * g.size for p, g in zip(price, groups)), 0.0)
    made, cost, floor = best
    note = f"price {cost:.2f} USD/h; by this method's stages at least {floor:.2f} USD/h at the whole cluster's T(k)"
    return made.model_copy(update={"notes": (*made.notes, note)})


def _price(kind: str, prices: Mapping[str, float] | None, cluster: Cluster) -> float:
    if prices is not None:
        if kind not in prices:
            raise InputError("expected a price for every kind of node", field="prices", value=kind)
        return prices[kind]
    node = next(n for n in cluster.nodes if n.kind == kind)
    known = gpus()
    if node.gpu not in known or not getattr(known[node.gpu], "price_usd_per_hour", None):
        raise InputError("the catalogue has no price for it: expected `prices`", field="gpu", value=node.gpu)
    return float(known[node.gpu].price_usd_per_hour or 0.0) * node.gpus_per_node


def _choose(
    problem: Problem,
    groups: Sequence[Group],
    price: Sequence[float],
    target: float,
    solver: str,
    watch: Watch,
    seed: int,
) -> tuple[list[str], float] | None:
    """Names of the cheapest nodes whose stages carry `target`, and the solver's bound on their price."""
    layers = problem.num_layers
    pricing = StagePricing(groups, target, layers)
    pool = {s.lanes: s for s in uniform_stages(groups, target)}
    top = max(price)
    rng = np.random.default_rng(seed)
    for weight in SCARCITY:
        for _ in range(4):
            duals = np.array(price) + weight * top * rng.random(len(groups)) + 1e-9
            for stage in pricing.cheapest(duals):
                pool.setdefault(stage.lanes, stage)
    stages = list(pool.values())
    model = pyo.ConcreteModel("cheapest")
    model.count = pyo.Var(range(len(stages)), domain=pyo.NonNegativeIntegers)
    model.price = pyo.Objective(expr=sum(_cost(s, price) * model.count[p] for p, s in enumerate(stages)))
    model.all_layers = pyo.Constraint(expr=sum(s.length * model.count[p] for p, s in enumerate(stages)) >= layers)
    define_node_supply_constraints(model, [s.uses for s in stages], [group.size for group in groups])
    settings = SolverSettings(solver, time_limit_s=min(10.0, watch.left_s), seed=seed, mip_gap=1e-4)
    solution = solve_model(model, settings)
    if solution.value is None:
        return None
    names: list[str] = []
    for g, group in enumerate(groups):
        used = sum(s.uses[g] * round(model.count[p].value) for p, s in enumerate(stages))
        names += group.nodes[:used]
    return names, solution.bound or 0.0


def _cost(stage: PatternStage, price: Sequence[float]) -> float:
    return sum(n * p for n, p in zip(stage.uses, price))
