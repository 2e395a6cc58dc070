"""The proportional placement: one chain, layers as memory, by water-filling."""

from hypothesis import given
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement.baselines.proportional import water_fill


def test_one_chain_in_proportion():
    plan = hk.plan("single24", "llama2-70b", method="proportional")
    spans = sorted(plan.placement.values())
    assert [e for _, e in spans[:-1]] == [s for s, _ in spans[1:]]
    held = {k: {e - s for n, (s, e) in plan.placement.items() if n.startswith(k)} for k in ("A100", "L4", "T4")}
    # 12, 7 and 4 layers fit, 152 in all: 80 / 152 of each, rounded.
    assert held["A100"] <= {6, 7} and held["L4"] <= {3, 4} and held["T4"] <= {2, 3}


@given(st.data())
def test_water_filling(data):
    limits = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    weights = data.draw(st.lists(st.integers(1, 50), min_size=len(limits), max_size=len(limits)))
    total = data.draw(st.integers(len(limits), sum(limits)))
    sizes = water_fill(total, weights, limits)
    assert sum(sizes) == total
    assert all(1 <= s <= limit for s, limit in zip(sizes, limits))
    for i in range(len(limits)):
        for j in range(len(limits)):
            # Water finds its level: no number below its limit stands clearly lower than another.
            if sizes[i] < limits[i] and sizes[j] > 1:
                assert (sizes[i] + 1) / weights[i] >= (sizes[j] - 1) / weights[j] - 1e-9
