"""Prices and power of machines: the cluster's own come before the catalogue's."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from helix_kit.catalogue import gpus
from helix_kit.cluster import Cluster, Node

MINE = {"memory_gb": 24, "memory_bandwidth_gb_per_s": 1008, "fp16_tflops": 165, "price_usd_per_hour": 0.4,
        "tdp_w": 450, "idle_w": 20}  # fmt: skip
NODES = [{"gpu": "L4", "gpus_per_node": 2}, {"gpu": "mine"}, {"gpu": "H100-80G"}]


def cluster(**fields: object) -> Cluster:
    return Cluster.model_validate({"name": "priced", "nodes": NODES, "gpus": {"mine": MINE}, **fields})


def test_prices_of_the_file_come_before_those_of_its_gpus_and_of_the_catalogue():
    prices = {"L4": 0.5, "H100-80G": {"on_demand": 3.0, "spot": 1.25}, "B200": 5}
    plain, own = cluster(), cluster(prices=prices)
    l4, mine, h100 = plain.nodes
    assert plain.usd_per_hour(l4) == 2 * gpus()["L4"].price_usd_per_hour
    assert [own.usd_per_hour(n) for n in (l4, mine, h100)] == [1.0, 0.4, 3.0]
    assert [own.usd_per_hour(h100, p) for p in ("reserved", "spot")] == [3.0, 1.25]
    assert own.usd_per_hour(l4, "spot") == 1.0  # what is owned costs the same however it is paid
    assert own.gpu("B200").price.source == "cluster priced"
    assert own.subset([own.nodes[0].name]).prices == own.prices


def test_own_gpus_have_power_and_files_keep_prices(tmp_path):
    own = cluster(prices={"L4": 0.5})
    assert own.gpu("mine").power_w(0.5) == pytest.approx(235)
    own.save(tmp_path / "own.yaml")
    assert Cluster.load(tmp_path / "own.yaml") == own


@pytest.mark.parametrize(
    ("prices", "expected"),
    [({"L5": 1}, "prices.L5: unknown GPU 'L5': did you mean L4"), ({"L4": -1}, "greater than or equal to 0"),
     ({"L4": {"spot": 1}}, "on_demand")],
)  # fmt: skip
def test_each_mistake_is_told(prices, expected):
    with pytest.raises(ValidationError) as caught:
        cluster(prices=prices)
    assert expected in str(caught.value)


def test_gpus_that_share_a_layer_divide_those_of_the_node():
    kinds = [Node(name="a", gpu="L4", gpus_per_node=4, tensor_parallel=t).kind for t in (None, 1, 2, 4)]
    assert kinds == ["L4x4", "L4x4-tp1", "L4x4-tp2", "L4x4-tp4"]
    assert Node(name="a", gpu="L4", tensor_parallel=1).kind == "L4"
    assert Node(name="a", gpu="L4", gpus_per_node=2, gpu_link="pcie", tensor_parallel=2).kind == "L4x2-pcie-tp2"
    for wrong in (3, 8, 0):
        with pytest.raises(ValidationError, match=r"tensor_parallel|greater than or equal"):
            Node(name="a", gpu="L4", gpus_per_node=4, tensor_parallel=wrong)
