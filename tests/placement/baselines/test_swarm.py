"""Swarm: the published placements, and clusters that it cannot serve."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError
from helix_kit.placement.baselines import swarm_placement


def test_published_placement_is_reproduced(published, setup):
    problem, expected = published(setup, "swarm")
    assert swarm_placement(problem) == expected


def test_without_enough_nodes_it_says_so():
    cluster = hk.Cluster.model_validate({"name": "few", "nodes": [{"gpu": "A100-40G", "count": 8}, {"gpu": "T4"}]})
    with pytest.raises(InfeasibleError, match="20 stages") as error:
        hk.plan(cluster, "llama2-70b", method="swarm")
    assert error.value.fix
    assert hk.plan(cluster, "llama2-70b").flow_tokens_per_s > 0


def test_lengths_differ_by_one_where_only_very_short_stages_divide_the_model():
    """59 layers are prime: 59 stages of one layer would divide them, six of nine and ten layers are used."""
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "L4", "count": 12}]})
    model = hk.Model.preset("llama-30b").model_copy(update={"num_layers": 59})
    spans = sorted(set(swarm_placement(hk.Problem.of(cluster, model)).values()))
    assert [end - start for start, end in spans] == [9, 10, 10, 10, 10, 10]
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]] and spans[-1][1] == 59
