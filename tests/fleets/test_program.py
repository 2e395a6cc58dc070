"""The integer program against all fleets of a few pipelines, one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from helix_kit.fleets.patterns import Pattern
from helix_kit.fleets.program import Limits, cheapest_choice, largest_choice

KINDS = ("A", "B", "C")


def some_patterns(seed: int) -> dict[Pattern, float]:
    """Five pipelines of one to three machines of random kinds, with random prices and rates."""
    rng = np.random.default_rng(seed)
    price = dict(zip(KINDS, rng.uniform(0.5, 4.0, len(KINDS))))
    found = {}
    for _ in range(5):
        kinds = rng.choice(KINDS, size=rng.integers(1, 4))
        stages = tuple((str(kind), 1) for kind in sorted(kinds))
        found[Pattern(stages, sum(price[k] for k in kinds), 1.0)] = float(rng.uniform(0.2, 3.0))
    return found


def all_fleets(rates: dict[Pattern, float], stock: dict[str, int], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Price and requests/s of every fleet with at most `most` pipelines of each pattern, within the stock."""
    patterns = list(rates)
    counts = np.array(list(product(range(most + 1), repeat=len(patterns))))
    for kind, limit in stock.items():
        uses = np.array([sum(name == kind for name, _ in p.stages) for p in patterns])
        counts = counts[counts @ uses <= limit]
    return counts @ np.array([p.usd_per_hour for p in patterns]), counts @ np.array([rates[p] for p in patterns])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stock", [{"A": 4, "B": 3, "C": 4}, {"B": 1}])
def test_cheapest_is_that_of_all_fleets(seed, stock):
    rates = some_patterns(seed)
    # The demand is small enough for at most six pipelines of each pattern.
    demand = 3.0 if len(stock) == 3 else min(rates.values()) * 5
    prices, served = all_fleets(rates, stock, 6)
    enough = prices[served >= demand - 1e-9]
    chosen = cheapest_choice(rates, demand, Limits(stock))
    if not len(enough):
        assert chosen is None
        return
    assert chosen.value == pytest.approx(enough.min(), rel=2e-4)
    assert chosen.bound <= enough.min() + 1e-6
    assert sum(rates[p] * n for p, n in chosen.count.items()) >= demand - 1e-6
    assert sum(p.usd_per_hour * n for p, n in chosen.count.items()) == pytest.approx(chosen.value)


@pytest.mark.parametrize("seed", range(4))
def test_largest_within_budget_is_that_of_all_fleets(seed):
    rates, stock, budget = some_patterns(seed), {"A": 3, "B": 3, "C": 3}, 9.0
    prices, served = all_fleets(rates, stock, 3)
    best = served[prices <= budget].max()
    assert largest_choice(rates, Limits(stock, budget)).value == pytest.approx(best, rel=2e-4)


def test_a_budget_that_is_too_small():
    one = Pattern((("A", 1),), 2.0, 1.0)
    assert cheapest_choice({one: 1.0}, 2.0, Limits({}, budget_usd_per_hour=3.9)) is None
    assert cheapest_choice({one: 1.0}, 2.0, Limits({}, budget_usd_per_hour=4.0)).value == pytest.approx(4.0)
    assert cheapest_choice({one: 0.0}, 1.0, Limits({})) is None
