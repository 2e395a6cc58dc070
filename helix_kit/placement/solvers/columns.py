"""Column generation: linear programs with more columns than can be listed.

    max sum_p v_p y_p    s.t.  sum_p a_p y_p <= n,   y >= 0

Column p has the value v_p and uses a_pg of row g, of which there are n_g. The program is solved by the revised simplex
method, in which the entering column may come from a pricing function (Gilmore and Gomory, 1961). There are as many
rows as groups of equal nodes, so the basis is tiny and nearly all time goes into the pricing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TOLERANCE = 1e-9
"""A column enters the basis if its reduced cost is above this."""


class Column(NamedTuple):
    """One column of the program: what a unit of it is worth, and how much of each row it uses."""

    value: float
    uses: Sequence[float]


Pricing = Callable[[Array], Iterable[Column]]
"""Maps the duals u (one for each row) to columns. Among them must be one of the greatest reduced cost v - u a."""


class LinearSolution(NamedTuple):
    """The end of `solve_columns`."""

    objective: float
    duals: Array
    """One for each row, not negative when `optimal`."""
    optimal: bool
    """Whether no column, listed or priced, improves the objective."""


def _never() -> bool:
    return False


def solve_columns(
    supply: Sequence[float],
    columns: Iterable[Column],
    price: Pricing | None = None,
    *,
    max_pivots: int = 2000,
    enough: float = np.inf,
    should_stop: Callable[[], bool] = _never,
) -> LinearSolution:
    """Solve the program with the given columns and those that `price` adds.

    Parameters
    ----------
    supply
        Right-hand sides n, one for each row.
    columns
        Columns known at the start; there may be none.
    price
        Returns further columns for given duals. None: there are no others.
    max_pivots
        Number of simplex steps after which the search ends.
    enough
        Objective at which the search ends.
    should_stop
        Asked at every step; the search ends once it returns True.

    Returns
    -------
    LinearSolution
        Objective, duals and whether they are optimal. After an early end the duals belong to the columns seen so far.

    Examples
    --------
    Three of the first row and four of the second; a unit of the last column uses one of each:

    >>> found = solve_columns([3, 4], [Column(1.0, [1, 0]), Column(1.0, [0, 2]), Column(2.0, [1, 1])])
    >>> round(found.objective, 6), found.duals.round(6).tolist(), found.optimal
    (6.5, [1.5, 0.5], True)
    """
    rows = len(supply)
    # Equal groups make degenerate vertices, on which the simplex method could cycle. Slightly different right-hand
    # sides break the ties in the ratio test; they change the objective by a share of 1e-10 x rows at most.
    right = np.asarray(supply, float) * (1 + 1e-10 * np.arange(1, rows + 1))
    # The first `rows` columns are slacks.
    values = [0.0] * rows
    uses = [np.eye(rows)[i] for i in range(rows)]
    for value, use in columns:
        values.append(float(value))
        uses.append(np.asarray(use, float))
    value_array, use_array = np.array(values), np.array(uses)
    basis = list(range(rows))
    inverse = np.eye(rows)
    duals = np.zeros(rows)
    objective = 0.0
    for _ in range(max_pivots):
        duals = value_array[basis] @ inverse
        level = inverse @ right
        objective = float(value_array[basis] @ level)
        if objective >= enough or should_stop():
            return LinearSolution(objective, duals, False)
        reduced = value_array - use_array @ duals
        entering = int(np.argmax(reduced))
        if reduced[entering] <= TOLERANCE:
            if price is None:
                return LinearSolution(objective, np.maximum(duals, 0.0), True)
            fresh = [(v, np.asarray(u, float)) for v, u in price(np.maximum(duals, 0.0))]
            fresh = [(v, u) for v, u in fresh if v - u @ duals > TOLERANCE]
            if not fresh:
                return LinearSolution(objective, np.maximum(duals, 0.0), True)
            value_array = np.concatenate([value_array, [v for v, _ in fresh]])
            use_array = np.vstack([use_array, *[u for _, u in fresh]])
            continue
        step = inverse @ use_array[entering]
        ratios = np.where(step > TOLERANCE, level / np.where(step > TOLERANCE, step, 1.0), np.inf)
        leaving = int(np.argmin(ratios))
        if not np.isfinite(ratios[leaving]):
            # A column that uses nothing: the program is unbounded. No caller lists or prices one.
            return LinearSolution(np.inf, duals, False)
        basis[leaving] = entering
        inverse = np.linalg.inv(use_array[basis].T)
    return LinearSolution(objective, np.maximum(duals, 0.0), False)
