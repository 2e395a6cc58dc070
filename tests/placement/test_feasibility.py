"""Models that do not fit: what is missing, and the smallest remedy."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, InfeasibleError, Model, Problem
from helix_kit.placement.feasibility import Shortfall, shortfall


def test_shortfall_counts_layers_and_its_remedy_is_enough_and_minimal():
    cluster = Cluster.model_validate({"name": "few", "nodes": [{"gpu": "T4", "count": 3}]})
    model = Model.preset("llama2-70b")
    found = shortfall(cluster, model)
    each = found.by_kind["T4"][1]
    assert found.layers_held == 3 * each < found.layers_needed == 80
    gpu, count, _ = next(r for r in found.remedies if r[0] == "A100-40G")

    def with_more(number: int) -> Cluster:
        nodes = [{"gpu": "T4", "count": 3}] + ([{"gpu": gpu, "count": number}] if number else [])
        return Cluster.model_validate({"name": "more", "nodes": nodes})

    assert Problem.of(with_more(count), model)
    with pytest.raises(InfeasibleError):
        Problem.of(with_more(count - 1), model)
    assert "Smallest change" in found.words and not any(r[0].startswith("CPU-") for r in found.remedies)


def test_a_model_that_fits_lacks_nothing():
    found = shortfall(Cluster.preset("single24"), Model.preset("llama2-70b"))
    assert found.remedies == () and found.words.startswith("All 80 layers fit")


def test_a_gpu_of_the_clusters_own_is_a_remedy_and_is_not_the_one_of_the_table():
    """Two T4 of 96 GB hold LLaMA-2 70B, though the published T4 of 16 GB holds four layers."""
    big = {"memory_gb": 96, "memory_bandwidth_gb_per_s": 3000, "fp16_tflops": 900, "price_usd_per_hour": 0.01}
    nodes = [{"gpu": "T4", "count": 1}]
    cluster = Cluster.model_validate({"name": "own", "nodes": nodes, "gpus": {"T4": big}})
    found = shortfall(cluster, Model.preset("llama2-70b"))
    assert ("T4", 1, 0.01) in found.remedies
    more = Cluster.model_validate({"name": "own", "nodes": [{"gpu": "T4", "count": 2}], "gpus": {"T4": big}})
    assert Problem.of(more, Model.preset("llama2-70b"))


def test_the_cheapest_change_is_told_where_it_is_not_the_smallest():
    dear_first = Shortfall(60, 80, {"T4": (15, 4)}, (("H100", 1, 3.0), ("L4", 3, 2.1), ("X", 4, None)), ("why",))
    assert dear_first.words.splitlines() == [
        "The model has 80 layers and the cluster holds at most 60: 15 x T4 with at most 4 layers each.",
        "why.",
        "Smallest change: 1 more H100 (about $3.00 per hour).",
        "Cheapest: 3 more L4 (about $2.10 per hour).",
    ]
    without_price = Shortfall(60, 80, {"T4": (15, 4)}, (("X", 4, None),))
    assert without_price.words.splitlines()[1:] == ["Smallest change: 4 more X."]
    nothing_helps = Shortfall(60, 80, {"T4": (15, 4)}, ())
    assert nothing_helps.smallest is None and len(nothing_helps.words.splitlines()) == 1
