"""What is left when a machine fails, held against networkx's own minimum cut and against plain counting."""

from __future__ import annotations

import networkx as nx
import pytest

from helix_kit import Cluster, Model, Plan, Problem, plan
from helix_kit.analysis import losses
from helix_kit.analysis.judge import Judge
from helix_kit.flow import SINK, SOURCE, build_flow_graph
from helix_kit.placement.served import Served


def test_losses_are_the_max_flow_of_what_is_left(overlapping_plan):
    table = losses(overlapping_plan).set_index("node")
    assert set(table.index) == set(overlapping_plan.placement)
    assert table.attrs["whole_tokens_per_s"] == overlapping_plan.flow_tokens_per_s
    for name in overlapping_plan.placement:
        rest = {n: span for n, span in overlapping_plan.placement.items() if n != name}
        speeds = {n: overlapping_plan.node_throughput_tokens_per_s[n] for n in rest}
        graph = build_flow_graph(
            overlapping_plan.cluster, overlapping_plan.model, rest, speeds,
            passes_per_token=overlapping_plan.problem.passes_per_token,
        )  # fmt: skip
        value = nx.minimum_cut_value(graph, SOURCE, SINK) / 1000
        assert table.loc[name, "tokens_per_s"] == pytest.approx(value)


@pytest.fixture(scope="module")
def replicas() -> Problem:
    """Two H100 that hold the whole model each, and an L4 that cannot."""
    cluster = Cluster.model_validate({"name": "r", "nodes": [{"gpu": "H100-80G", "count": 2}, {"gpu": "L4"}]})
    return Problem.of(cluster, Model.preset("llama-30b"))


def test_a_plan_that_spares_machines_loses_against_its_own_flow(replicas):
    """Where kinds have a share of their capacity, a flow of all capacity is not the base: no loss is negative."""
    placement = {"H100-80G-0": (0, 60), "H100-80G-1": (0, 60)}
    whole = replicas.max_flow(placement, split="balanced")
    half = replicas.max_flow(
        placement, split="balanced", capacity_tokens_per_s=dict.fromkeys(placement, whole.tokens_per_s / 4)
    )
    served = Served(decode_tokens_per_s=1.0, execution="range", ease={"H100-80G": 0.5})
    mine = Plan.from_placement(replicas, placement, method="search", flow=half, objective="served", served=served)
    table = losses(mine, total_s=60.0)
    assert (table["loss_tokens_per_s"] >= 0).all() and (table["loss_percent"] <= 100).all()
    # One of two equal replicas: half of what is served, within the noise of short runs.
    assert table["loss_percent"].tolist() == pytest.approx([50, 50], abs=12)
    assert (table["loss_low"] <= table["loss_tokens_per_s"]).all()
    assert mine.max_flow.min_cut == ()  # no machine is full


def test_separate_pipelines_do_not_help_each_other_out(replicas):
    placement = {"H100-80G-0": (0, 60), "H100-80G-1": (0, 60)}
    links = [("coordinator", n) for n in placement] + [(n, "coordinator") for n in placement]
    flow = replicas.max_flow(placement, links=links)
    mine = Plan.from_placement(replicas, placement, method="separate", flow=flow)
    assert losses(mine)["loss_percent"].tolist() == pytest.approx([50, 50], abs=0.1)


def test_without_time_a_machine_costs_at_most_the_flow_through_it(overlapping_plan):
    exact = losses(overlapping_plan).set_index("node")["tokens_per_s"]
    table = losses(overlapping_plan, total_s=0.0).set_index("node")
    assert table["is_predicted"].all() and table["loss_low"].isna().all()
    for name, left in table["tokens_per_s"].items():
        through = sum(f for (_, b), f in overlapping_plan.flow_edges.items() if b == name)
        assert left == pytest.approx(overlapping_plan.flow_tokens_per_s - through) and left <= exact[name] + 1e-6


def test_machines_that_do_the_same_are_looked_at_once(monkeypatch):
    cluster = Cluster.model_validate({"name": "eight", "nodes": [{"gpu": "A100-40G", "count": 8}]})
    problem = Problem.of(cluster, Model.preset("llama-30b"))
    placement = {f"A100-40G-{i}": ((0, 30) if i < 4 else (30, 60)) for i in range(8)}
    mine = Plan.from_placement(problem, placement, method="hand")
    flows = []
    entry = Judge.entry
    monkeypatch.setattr(Judge, "entry", lambda self, *args, **more: (flows.append(1), entry(self, *args, **more))[1])
    table = losses(mine)
    assert len(flows) == 3  # the whole plan, and one machine of each stage
    assert table["loss_percent"].tolist() == pytest.approx([25] * 8, abs=0.01)


def test_a_chain_of_another_engine_that_lost_a_machine_serves_nothing():
    """Two chains of two equal machines under vLLM's rules: either half of a chain is of no use without the other."""
    cluster = Cluster.model_validate({"name": "four", "nodes": [{"gpu": "L40S", "count": 4}]})
    made = plan(cluster, "llama-30b", engine="vllm-0.15", objective="served", max_stages=2, window_s=20.0)
    assert sorted(len(stages) for stages, _ in made.pipelines) == [2, 2]
    table = losses(made, total_s=60)
    assert len(table) == 4 and not table["is_predicted"].iloc[0]
    assert table["loss_percent"].tolist() == pytest.approx([50] * 4, abs=5)
