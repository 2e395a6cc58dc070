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


@pytest.mark.parametrize("wanted", [2045.7, 1e4, 1e7, 1e9, 1e300])
def test_however_far_out_of_reach_the_most_is_named(wanted):
    """Far enough above, no stage of all the nodes carries the flow, and there is nothing to choose from."""
    cluster = hk.Cluster.model_validate({"name": "few", "nodes": [{"gpu": "L4", "count": 6}]})
    with pytest.raises(InfeasibleError, match=r"all of cluster few reaches \d+\.\d tokens/s \(at most \d+") as error:
        cheapest(cluster, hk.Model.preset("llama-30b"), wanted)
    assert error.value.fix.startswith("ask for at most ")


@pytest.mark.parametrize("wanted", [0, -1, float("nan"), float("inf")])
def test_what_is_no_flow_is_refused(wanted):
    with pytest.raises(InputError, match="positive number of tokens/s"):
        cheapest(hk.Cluster.preset(SINGLE), hk.Model.preset(MODEL), wanted)


def test_the_clusters_own_prices_count():
    own = {"memory_gb": 24, "memory_bandwidth_gb_per_s": 300, "fp16_tflops": 121}
    nodes = [{"gpu": "dear", "count": 6}, {"gpu": "cheap", "count": 6}]

    def cluster(**prices):
        gpus = {name: {**own, **({"price_usd_per_hour": price} if price else {})} for name, price in prices.items()}
        return hk.Cluster.model_validate({"name": "own", "nodes": nodes, "gpus": gpus})

    plan = cheapest(cluster(dear=9.0, cheap=0.5), hk.Model.preset("llama-30b"), 100.0)
    assert set(plan.cluster.kind_counts) == {"cheap"}
    with pytest.raises(InputError, match=r"cluster own: gpu = 'dear': no price is known for it"):
        cheapest(cluster(dear=None, cheap=0.5), hk.Model.preset("llama-30b"), 100.0)
