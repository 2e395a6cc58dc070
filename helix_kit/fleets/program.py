"""The integer program over pipelines: the cheapest numbers of each that carry a rate, or the highest rate for a budget.

    min  sum_p c_p y_p    s.t.  sum_p r_p y_p >= R,   sum_p a_pg y_p <= n_g,   sum_p c_p y_p <= B,   y_p whole

y_p counts pipelines of pattern p, which cost c_p USD/h, serve r_p requests/s within the SLO and take a_pg machines of
kind g. R is the rate to serve, n_g the stock, B the budget. A fleet has at most `MAX_MACHINES` machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyomo.environ as pyo

from helix_kit.fleets.patterns import Pattern
from helix_kit.placement.solvers import SolverSettings, solve_model
from helix_kit.placement.solvers.parts import define_node_supply_constraints

MAX_MACHINES = 300
"""Machines of a fleet at most: it is simulated, and its flow network grows with the square of its pipelines."""
MIP_GAP = 1e-4
"""Relative gap at which the solver ends: a hundredth of a percent of the price."""


class Limits(NamedTuple):
    """What a fleet may use.

    Examples
    --------
    >>> Limits({"L4": 3}).budget_usd_per_hour is None
    True
    """

    stock: Mapping[str, int]
    """Kind -> machines at most, of limited kinds."""
    budget_usd_per_hour: float | None = None
    """USD/h at most; None: any."""
    solver: str = "highs"
    """As in `helix_kit.plan`."""
    time_limit_s: float = 10.0
    """Seconds of a solve."""


@dataclass(frozen=True)
class Choice:
    """Pipelines chosen, and the objective with its bound.

    Examples
    --------
    >>> Choice({}, 0.0, 0.0).value
    0.0
    """

    count: dict[Pattern, int]
    """Pattern -> pipelines."""
    value: float
    """USD/h, or requests/s."""
    bound: float
    """The solver's bound on it."""


def cheapest_choice(rates: Mapping[Pattern, float], rate_per_s: float, limits: Limits) -> Choice | None:
    """The cheapest pipelines that serve a rate.

    Parameters
    ----------
    rates
        Pattern -> requests/s that one pipeline of it serves.
    rate_per_s
        R, the rate to serve.
    limits
        Stock, budget, and how to solve.

    Returns
    -------
    Choice or None
        None when stock and budget do not suffice.

    Examples
    --------
    >>> small, large = Pattern((("L4", 32),), 1.0, 1.0), Pattern((("H100-80G", 32),), 2.5, 4.0)
    >>> chosen = cheapest_choice({small: 1.0, large: 4.0}, 5.0, Limits({}))
    >>> chosen.value, chosen.count[small], chosen.count[large]
    (3.5, 1, 1)
    """
    useful = _undominated(rates, limits)
    if not useful:
        return None
    model = _model(useful, limits)
    model.price = pyo.Objective(expr=sum(p.usd_per_hour * model.count[i] for i, p in enumerate(useful)))
    model.rate_served = pyo.Constraint(expr=sum(rates[p] * model.count[i] for i, p in enumerate(useful)) >= rate_per_s)
    return _solved(model, useful, limits)


def largest_choice(rates: Mapping[Pattern, float], limits: Limits) -> Choice | None:
    """The pipelines that serve most requests/s within stock and budget, at least one of which must be limited.

    Parameters
    ----------
    rates
        Pattern -> requests/s that one pipeline of it serves.
    limits
        Stock, budget, and how to solve.

    Returns
    -------
    Choice or None
        None when not even one pipeline is possible.

    Examples
    --------
    >>> small = Pattern((("L4", 32),), 1.0, 1.0)
    >>> largest_choice({small: 0.5}, Limits({}, budget_usd_per_hour=3.5)).value
    1.5
    """
    useful = _undominated(rates, limits)
    if not useful:
        return None
    model = _model(useful, limits)
    load = sum(rates[p] * model.count[i] for i, p in enumerate(useful))
    model.max_rate = pyo.Objective(expr=load, sense=pyo.maximize)
    return _solved(model, useful, limits)


def _model(patterns: Sequence[Pattern], limits: Limits) -> pyo.ConcreteModel:
    """Variables, stock and budget."""
    model = pyo.ConcreteModel("fleet")
    model.count = pyo.Var(range(len(patterns)), domain=pyo.NonNegativeIntegers)
    kinds = list(limits.stock)
    uses = [[p.uses.get(kind, 0) for kind in kinds] for p in patterns]
    define_node_supply_constraints(model, uses, [limits.stock[kind] for kind in kinds])
    machines = sum(len(p.stages) * model.count[i] for i, p in enumerate(patterns))
    model.machines = pyo.Constraint(expr=machines <= MAX_MACHINES)
    if limits.budget_usd_per_hour is not None:
        price = sum(p.usd_per_hour * model.count[i] for i, p in enumerate(patterns))
        model.budget = pyo.Constraint(expr=price <= limits.budget_usd_per_hour + 1e-9)
    return model


def _solved(model: pyo.ConcreteModel, patterns: Sequence[Pattern], limits: Limits) -> Choice | None:
    settings = SolverSettings(limits.solver, time_limit_s=limits.time_limit_s, mip_gap=MIP_GAP)
    solution = solve_model(model, settings)
    if solution.value is None:
        return None
    count = {p: n for i, p in enumerate(patterns) if (n := round(model.count[i].value or 0))}
    return Choice(count, solution.value, solution.value if solution.bound is None else solution.bound)


def _undominated(rates: Mapping[Pattern, float], limits: Limits) -> list[Pattern]:
    """Patterns that no other one replaces: as fast, no dearer, no longer, and with no more of any limited kind."""
    order = sorted(
        (p for p, rate in rates.items() if rate > 0 and math.isfinite(rate)), key=lambda p: (p.usd_per_hour, -rates[p])
    )
    kept: list[tuple[Pattern, list[int]]] = []
    for pattern in order:
        used = [pattern.uses.get(kind, 0) for kind in limits.stock]
        if any(n > s for n, s in zip(used, limits.stock.values())):
            continue
        uses = [*used, len(pattern.stages)]
        if not any(rates[q] >= rates[pattern] and all(a <= b for a, b in zip(other, uses)) for q, other in kept):
            kept.append((pattern, uses))
    return [pattern for pattern, _ in kept]


__all__ = ["Choice", "Limits", "cheapest_choice", "largest_choice"]
