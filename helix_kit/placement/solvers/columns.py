"""Linear programs with more columns than can be listed: max sum v_p y_p, sum_p a_p y_p <= n, y >= 0.

Revised simplex in which the entering column may come from a pricing function (Gilmore and Gomory). There are as
many rows as groups of equal nodes, so the basis is tiny and the pricing, a dynamic program, is all the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pricing = Callable[[Array], Iterable[tuple[float, Sequence[float]]]]
"""Duals u (one a row) -> columns (value, uses) worth a look; the best of all must be among them."""
TOLERANCE = 1e-9


def solve(
    supply: Sequence[float],
    columns: Iterable[tuple[float, Sequence[float]]],
    price: Pricing | None = None,
    *,
    max_pivots: int = 2000,
    enough: float = np.inf,
    over: Callable[[], bool] = lambda: False,
) -> tuple[float, Array, bool]:
    """(objective, duals, whether optimal) of the program with `columns` and whatever `price` adds.

    Stops early, with False, once the objective reaches `enough`, `over()` says so, or pivots run out; the duals
    then belong to the columns seen so far.
    """
    rows = len(supply)
    # A tiny spread on the right-hand side breaks ties in the ratio test, which would otherwise cycle: equal
    # groups make degenerate vertices. It changes the objective by 1e-9 relative at most.
    right = np.asarray(supply, float) * (1 + 1e-10 * np.arange(1, rows + 1))
    values = [0.0] * rows
    uses = [np.eye(rows)[i] for i in range(rows)]
    for value, use in columns:
        values.append(float(value))
        uses.append(np.asarray(use, float))
    value_array, use_array = np.array(values), np.array(uses)
    basis = list(range(rows))
    inverse = np.eye(rows)
    priced = price is None
    duals = np.zeros(rows)
    objective = 0.0
    for _ in range(max_pivots):
        duals = value_array[basis] @ inverse
        level = inverse @ right
        objective = float(value_array[basis] @ level)
        if objective >= enough or over():
            return objective, duals, False
        reduced = value_array - use_array @ duals
        entering = int(np.argmax(reduced))
        if reduced[entering] <= TOLERANCE:
            if priced or price is None:
                return objective, np.maximum(duals, 0.0), True
            fresh = [(v, np.asarray(u, float)) for v, u in price(np.maximum(duals, 0.0))]
            fresh = [(v, u) for v, u in fresh if v - u @ duals > TOLERANCE]
            if not fresh:
                return objective, np.maximum(duals, 0.0), True
            value_array = np.concatenate([value_array, [v for v, _ in fresh]])
            use_array = np.vstack([use_array, *[u for _, u in fresh]])
            continue
        step = inverse @ use_array[entering]
        ratios = np.where(step > TOLERANCE, level / np.where(step > TOLERANCE, step, 1.0), np.inf)
        leaving = int(np.argmin(ratios))
        if not np.isfinite(ratios[leaving]):
            return np.inf, duals, False  # a column that uses nothing: callers never price one
        basis[leaving] = entering
        inverse = np.linalg.inv(use_array[basis].T)
    return objective, np.maximum(duals, 0.0), False
