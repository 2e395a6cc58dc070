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


def test_moved_weights_are_counted_by_layers(old):
    name = next(iter(old.placement))
    start, end = old.placement[name]
    shifted = {**old.placement, name: (start + 2, end + 2) if end + 2 <= 80 else (start - 2, end - 2)}
    assert moved_gb(old.problem, old.placement, shifted) == pytest.approx(2 * old.model.layer_gb)


def test_align_turns_interchangeable_nodes_back(old):
    """Two T4 exchange their ranges: the plan is the same, and aligned with the old one nothing moves."""
    swapped = dict(old.placement)
    swapped["T4-0"], swapped["T4-1"] = old.placement["T4-1"], old.placement["T4-0"]
    assert align(swapped, old.placement, groups_of(old.problem)) == old.placement
