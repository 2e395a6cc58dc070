"""Proportional and Parallax placements: whole, within memory, and as their descriptions say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement.baselines.heuristics import covers_all
from helix_kit.placement.baselines.others import water_fill

METHODS = ("swarm", "petals", "proportional", "parallax", "separate", "separate-plus")


@pytest.mark.parametrize("cluster", ["single24", "geo24", "hetero42"])
@pytest.mark.parametrize("method", METHODS)
def test_every_baseline_is_a_plan_under_every_bound(cluster, method):
    plan = hk.plan(cluster, "llama2-70b", method=method)
    assert covers_all(plan.problem, plan.placement)
    assert 0 < plan.flow_tokens_per_s <= min(plan.bounds.values())
    if not method.startswith("separate"):
        assert all(e - s <= plan.problem.max_layers(n) for n, (s, e) in plan.placement.items())


def test_proportional_is_one_chain_in_proportion():
    plan = hk.plan("single24", "llama2-70b", method="proportional")
    spans = sorted(plan.placement.values())
    assert [e for _, e in spans[:-1]] == [s for s, _ in spans[1:]]
    held = {k: {e - s for n, (s, e) in plan.placement.items() if n.startswith(k)} for k in ("A100", "L4", "T4")}
    # 12, 7 and 4 layers fit, 152 in all: 80 / 152 of each, rounded.
    assert held["A100"] <= {6, 7} and held["L4"] <= {3, 4} and held["T4"] <= {2, 3}


def test_parallax_completes_pipelines_inside_regions_first():
    plan = hk.plan("geo24", "llama-30b", method="parallax")
    whole = [path for path, _ in plan.pipelines if len({plan.cluster.region_of(s.node) for s in path}) == 1]
    assert whole


@given(st.data())
def test_water_filling(data):
    most = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    weight = data.draw(st.lists(st.integers(1, 50), min_size=len(most), max_size=len(most)))
    total = data.draw(st.integers(len(most), sum(most)))
    sizes = water_fill(total, weight, most)
    assert sum(sizes) == total
    assert all(1 <= s <= m for s, m in zip(sizes, most))
    for i in range(len(most)):
        for j in range(len(most)):
            # Water finds its level: nobody below its limit stands clearly lower than another.
            if sizes[i] < most[i] and sizes[j] > 1:
                assert (sizes[i] + 1) / weight[i] >= (sizes[j] - 1) / weight[j] - 1e-9
