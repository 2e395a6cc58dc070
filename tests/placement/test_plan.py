"""Plans: what they are made of, what they say of their flow, and that a file gives back the same plan."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.placement.plan import Plan
from helix_kit.placement.plan_check import checksum_of


def test_a_file_gives_back_the_same_plan_and_the_same_bytes(overlapping_plan, tmp_path):
    overlapping_plan.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert again == overlapping_plan
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


def test_an_edited_placement_gets_the_flow_of_what_it_says(overlapping_plan, tmp_path):
    """The node that holds [18, 30) beside another one is taken out: the other one alone limits the flow."""
    fields = json.loads(overlapping_plan.to_json())
    del fields["placement"]["T4-0"]
    for computed in ("flow", "flow_tokens_per_s", "bound_tokens_per_s", "gap", "node_throughput_tokens_per_s"):
        del fields[computed]
    (tmp_path / "plan.json").write_text(json.dumps(fields))
    edited = Plan.load(tmp_path / "plan.json")
    left = {name: span for name, span in overlapping_plan.placement.items() if name != "T4-0"}
    assert edited.placement == left
    assert edited.flow_tokens_per_s == overlapping_plan.problem.max_flow(left).tokens_per_s


def test_pipelines_add_up_to_the_flow_largest_first(overlapping_plan):
    rates = [rate for _, rate in overlapping_plan.pipelines]
    assert sum(rates) == pytest.approx(overlapping_plan.flow_tokens_per_s)
    assert rates == sorted(rates, reverse=True)
    over_link = dict.fromkeys(overlapping_plan.flow_edges, 0.0)
    for pipeline, rate in overlapping_plan.pipelines:
        path = ["coordinator", *(stage.node for stage in pipeline), "coordinator"]
        for edge in pairwise(path):
            over_link[edge] += rate
    assert over_link == pytest.approx(overlapping_plan.flow_edges)


@pytest.mark.parametrize("split", ["balanced", "any"])
@pytest.mark.parametrize("partial", [True, False])
def test_another_placement_keeps_the_rules_of_the_plan(overlapping_plan, split, partial):
    plan = Plan.from_placement(
        overlapping_plan.problem,
        {**overlapping_plan.placement, "T4-1": (0, 18)},
        method="hand",
        partial_inference=partial,
        flow_split=split,
    )
    other = plan.rearranged(overlapping_plan.placement)
    assert (other.partial_inference, other.flow_split) == (partial, split)
    expected = plan.problem.max_flow(overlapping_plan.placement, partial_inference=partial, split=split)
    assert other.flow_edges == pytest.approx(expected.edges)


def test_it_is_drawn_to_files(overlapping_plan, tmp_path):
    svg = overlapping_plan.to_svg(tmp_path / "plan.svg")
    assert (tmp_path / "plan.svg").read_text() == svg
    assert all(name in svg for name in overlapping_plan.placement)
    png = overlapping_plan.to_png(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes() == png and png.startswith(b"\x89PNG")


def test_a_plan_for_flow_has_no_front_to_draw(overlapping_plan):
    with pytest.raises(InputError, match="served"):
        overlapping_plan.pareto()


def test_a_file_from_before_lengths_is_read_as_what_it_assumed(tmp_path):
    cluster = hk.Cluster.model_validate(
        {"name": "old", "throughput": "published", "nodes": [{"gpu": "L4", "count": 6}]}
    )
    plan = hk.plan(cluster, "llama-30b", method="proportional", prove=False)
    data = json.loads(plan.to_json())
    del data["lengths"], data["cluster"]["throughput"], data["checksum"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**data, "checksum": checksum_of(data)}))
    old = Plan.load(path)
    assert (old.lengths.input_tokens, old.lengths.output_tokens) == (750, 240)
    assert old.cluster.throughput == "published"
    assert old.problem.node_throughput(old.placement) == plan.node_throughput_tokens_per_s
    old.save(path)
    assert Plan.load(path) == old


def test_another_json_file_is_no_plan(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama", "hidden_size": 64}')
    with pytest.raises(InputError, match=r"config.json: fields = 'model_type, hidden_size': expected a plan"):
        Plan.load(path)
