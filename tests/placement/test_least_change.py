"""Least change: a higher price for loading weights moves less, and gains count against it."""

import pytest

import helix_kit as hk
from helix_kit.placement.groups import groups_of
from helix_kit.placement.least_change import align, moved_gb

SINGLE, MODEL = "single24", "llama2-70b"


@pytest.fixture(scope="module")
def old():
    return hk.plan(SINGLE, MODEL, method="petals")


def test_dearer_moves_move_less(old):
    plans = [hk.plan(SINGLE, MODEL, patience_s=1.0, base=old, price_per_gb=price) for price in (0, 5, 1000)]
    moved = [moved_gb(old.problem, old.placement, p.placement) for p in plans]
    flows = [p.flow_tokens_per_s for p in plans]
    assert moved == sorted(moved, reverse=True)
    assert flows == sorted(flows, reverse=True)
    assert flows[0] == hk.plan(SINGLE, MODEL, patience_s=1.0).flow_tokens_per_s
    assert (moved[-1], flows[-1]) == (0, old.flow_tokens_per_s)


def test_lost_node_is_worked_around_cheaply():
    before = hk.plan(SINGLE, MODEL, patience_s=1.0)
    left = before.cluster.subset([n.name for n in before.cluster.nodes if n.name != "A100-40G-2"])
    fresh = hk.plan(left, MODEL, patience_s=1.0)
    gentle = hk.plan(left, MODEL, patience_s=1.0, base=before, price_per_gb=2.0)
    kept = {n: s for n, s in before.placement.items() if n in gentle.problem.kind_of}
    moved = [moved_gb(gentle.problem, kept, p.placement) for p in (fresh, gentle)]
    assert moved[1] < moved[0]
    assert gentle.flow_tokens_per_s - 2.0 * moved[1] >= fresh.flow_tokens_per_s - 2.0 * moved[0]


def test_moved_weights_are_those_of_the_diff(old):
    """Of a node in the middle two layers; of one that becomes the first also the embedding."""
    middle = next(n for n, (start, end) in old.placement.items() if start > 2 and end < 78)
    start, end = old.placement[middle]
    for shift, tables in ((2, 0), (-start, 1)):
        shifted = {**old.placement, middle: (start + shift, end + shift)}
        moved = moved_gb(old.problem, old.placement, shifted)
        new = hk.Plan.from_placement(old.problem, shifted, method="hand")
        assert moved == pytest.approx(old.diff(new).move_gb)
        layers = min(abs(shift), end - start)
        assert moved == pytest.approx(layers * old.model.layer_gb + tables * old.model.embedding_gb)


def test_another_machine_of_the_same_name_holds_nothing():
    """The plan in use has an L4 called b; in the new cluster b is an A10G, which has to load all that it is given."""
    nodes = [{"name": "a", "gpu": "L4"}, {"name": "b", "gpu": "L4"}]
    before = hk.plan(hk.Cluster.model_validate({"name": "c", "nodes": nodes}), "SmolLM2-135M", method="petals")
    nodes[1]["gpu"] = "A10G"
    new = hk.plan(hk.Cluster.model_validate({"name": "c", "nodes": nodes}), "SmolLM2-135M", base=before, price_per_gb=0)
    loads = {n.node: n.load_gb for n in before.diff(new).nodes}
    assert f"{sum(loads.values()):.1f} GB of weights to load anew" in " ".join(new.notes)
    assert "b" not in new.placement or loads["b"] > 0


def test_align_turns_interchangeable_nodes_back(old):
    """Two T4 exchange their ranges: the plan is the same, and aligned with the old one nothing moves."""
    swapped = dict(old.placement)
    swapped["T4-0"], swapped["T4-1"] = old.placement["T4-1"], old.placement["T4-0"]
    assert align(swapped, old.placement, groups_of(old.problem)) == old.placement
