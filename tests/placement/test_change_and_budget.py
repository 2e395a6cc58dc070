"""Minimal change and budgets: what is asked for is kept, and a higher price buys less."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement.cheapest import cheapest
from helix_kit.placement.least_change import moved_gb

SINGLE, MODEL = "single24", "llama2-70b"


@pytest.fixture(scope="module")
def old():
    return hk.plan(SINGLE, MODEL, method="petals")


def test_dearer_moves_move_less(old):
    plans = [hk.plan(SINGLE, MODEL, base=old, price_per_gb=price) for price in (0, 5, 1000)]
    moved = [moved_gb(old.problem, old.placement, p.placement) for p in plans]
    flows = [p.flow_tokens_per_s for p in plans]
    assert moved == sorted(moved, reverse=True)
    assert flows == sorted(flows, reverse=True)
    assert flows[0] == hk.plan(SINGLE, MODEL).flow_tokens_per_s
    assert (moved[-1], flows[-1]) == (0, old.flow_tokens_per_s)


def test_lost_node_is_worked_around_cheaply():
    before = hk.plan(SINGLE, MODEL)
    left = before.cluster.subset([n.name for n in before.cluster.nodes if n.name != "A100-40G-2"])
    fresh = hk.plan(left, MODEL)
    gentle = hk.plan(left, MODEL, base=before, price_per_gb=2.0)
    kept = {n: s for n, s in before.placement.items() if n in gentle.problem.kind_of}
    moved = [moved_gb(gentle.problem, kept, p.placement) for p in (fresh, gentle)]
    assert moved[1] < moved[0]
    assert gentle.flow_tokens_per_s - 2.0 * moved[1] >= fresh.flow_tokens_per_s - 2.0 * moved[0]


def test_moved_weights_are_counted_by_layers(old):
    name = next(iter(old.placement))
    start, end = old.placement[name]
    shifted = {**old.placement, name: (start + 2, end + 2) if end + 2 <= 80 else (start - 2, end - 2)}
    assert moved_gb(old.problem, old.placement, shifted) == pytest.approx(2 * old.model.layer_gb)


@pytest.mark.parametrize("wanted", [300, 1000, 2000])
def test_cheapest_reaches_what_was_asked(wanted):
    plan = cheapest(hk.Cluster.preset(SINGLE), hk.Model.preset(MODEL), wanted)
    assert plan.flow_tokens_per_s >= wanted
    assert "USD/h" in plan.notes[-1]


def test_less_is_cheaper_and_prices_decide():
    cluster, model = hk.Cluster.preset(SINGLE), hk.Model.preset(MODEL)
    few, many = (len(cheapest(cluster, model, x).cluster.nodes) for x in (300, 2000))
    assert few < many
    dear_t4 = cheapest(cluster, model, 400, prices={"L4": 0.1, "T4": 10, "A100-40G": 0.2}).cluster.kind_counts
    dear_a100 = cheapest(cluster, model, 400, prices={"L4": 0.1, "T4": 0.1, "A100-40G": 99}).cluster.kind_counts
    assert "T4" not in dear_t4
    assert "A100-40G" not in dear_a100


def test_more_than_all_nodes_reach():
    with pytest.raises(InfeasibleError, match=r"reaches 2045\.6") as error:
        cheapest(hk.Cluster.preset(SINGLE), hk.Model.preset(MODEL), 2500)
    assert "2045" in error.value.fix
    with pytest.raises(InputError, match="prices"):
        cheapest(hk.Cluster.preset(SINGLE), hk.Model.preset(MODEL), 500, prices={"L4": 1.0})
