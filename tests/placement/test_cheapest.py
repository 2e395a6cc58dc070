"""The cheapest nodes: the flow asked for is reached, less of it costs less, and prices decide."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError, InputError
from helix_kit.placement.cheapest import cheapest

SINGLE, MODEL = "single24", "llama2-70b"


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
