"""The way from one plan to another: what nodes have to load is counted here tensor by tensor, by set difference."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.placement.diff import layers_to_load, node_changes
from helix_kit.placement.least_change import moved_gb
from helix_kit.placement.served import Served

LAYERS = 12
NODES = [f"L4-{i}" for i in range(5)]
SPANS = st.tuples(st.integers(0, LAYERS - 1), st.integers(1, LAYERS)).filter(lambda s: s[0] < s[1])
PLACEMENTS = st.dictionaries(st.sampled_from(NODES), SPANS)


def cluster(**nodes: object) -> hk.Cluster:
    return hk.Cluster.model_validate({"name": "five", "nodes": [{"gpu": "L4", "count": 5}], **nodes})


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "two tables"])
def model(request) -> hk.Model:
    sizes = {"num_layers": LAYERS, "name": "tiny", "tied_embeddings": request.param}
    return hk.Model.preset("SmolLM2-135M").model_copy(update=sizes)


@pytest.fixture(scope="module")
def problem(model) -> hk.Problem:
    return hk.Problem.of(cluster(), model)


def plan_of(problem, placement, **fields) -> hk.Plan:
    return hk.Plan.from_placement(problem, placement, method="hand", **fields)


def tensors(span, model) -> dict[str, float]:
    """Every weight that a node with this range holds, with its GB."""
    if span is None:
        return {}
    held = {f"layers.{i}": model.layer_gb for i in range(LAYERS) if span[0] <= i < span[1]}
    table_gb = model.vocab_size * model.hidden_size * model.dtype_bytes / 1e9
    if "layers.0" in held:
        held["embed_tokens"] = table_gb
    if f"layers.{LAYERS - 1}" in held:
        held["embed_tokens" if model.tied_embeddings else "lm_head"] = table_gb
    return held


@given(PLACEMENTS, PLACEMENTS)
def test_a_node_loads_the_tensors_that_it_does_not_hold(problem, model, old, new):
    found = {n.node: n for n in node_changes(problem, old, problem, new)}
    assert set(found) == set(old) | set(new)
    layers_gb = 0.0
    for name, change in found.items():
        before, after = tensors(old.get(name), model), tensors(new.get(name), model)
        missing = {tensor: gb for tensor, gb in after.items() if tensor not in before}
        assert change.load_gb == pytest.approx(sum(missing.values()))
        assert (change.before, change.after) == (old.get(name), new.get(name))
        assert (change.change == "same") == (before == after)
        layers_gb += sum(gb for tensor, gb in missing.items() if tensor.startswith("layers."))
    assert sum(n.layers_gb for n in found.values()) == pytest.approx(layers_gb)
    assert moved_gb(problem, old, new) == pytest.approx(sum(n.load_gb for n in found.values()))


@given(SPANS, SPANS)
def test_layers_to_load_are_a_set_difference(before, after):
    assert layers_to_load(before, after) == len(set(range(*after)) - set(range(*before)))


def test_a_hand_made_example(problem, model):
    old = plan_of(problem, {"L4-0": (0, 6), "L4-1": (6, 12), "L4-2": (6, 12)})
    new = plan_of(problem, {"L4-0": (0, 6), "L4-1": (4, 12), "L4-3": (0, 6)})
    change = old.diff(new)
    table_gb = model.vocab_size * model.hidden_size * model.dtype_bytes / 1e9
    assert {n.node: n.change for n in change.nodes} == {
        "L4-0": "same", "L4-1": "moves", "L4-2": "leaves", "L4-3": "joins"
    }  # fmt: skip
    # L4-1 loads layers 4 and 5; L4-3 loads six layers and the embedding.
    assert change.layers_gb == pytest.approx(8 * model.layer_gb)
    assert change.move_gb == pytest.approx(8 * model.layer_gb + table_gb)
    assert [n.node for n in change.changed] == ["L4-1", "L4-2", "L4-3"]
    assert change.before.flow_tokens_per_s == old.flow_tokens_per_s
    assert change.after.flow_tokens_per_s == new.flow_tokens_per_s
    text = str(change)
    assert "L4-1  [6, 12)  [4, 12)" in text and "GB on 2 nodes" in text
    assert repr(change).count("\n") == 0 and "nodes that change 3 of 4" in repr(change)
    assert change._repr_html_().count("<tr>") > 5
    assert json.loads(json.dumps(change.to_dict()))["nodes"][2]["after"] is None


def test_the_way_back_and_no_way_at_all(problem):
    old = plan_of(problem, {"L4-0": (0, 12)})
    new = plan_of(problem, {"L4-0": (0, 8), "L4-1": (8, 12)})
    assert old.diff(old).move_gb == 0 and old.diff(old).changed == ()
    assert "nothing" in str(old.diff(old))
    assert new.diff(old).layers_gb == pytest.approx(4 * old.model.layer_gb)


def test_another_machine_of_the_same_name_holds_nothing(problem, model):
    moved = cluster(nodes=[{"gpu": "L4", "name": "L4-0"}, {"gpu": "T4", "name": "L4-1"}, {"gpu": "L4", "name": "new"}])
    spans = {"L4-0": (0, 6), "L4-1": (6, 12)}
    old, new = plan_of(problem, spans), plan_of(hk.Problem.of(moved, model), spans)
    change = old.diff(new)
    assert {n.node: n.change for n in change.nodes} == {"L4-0": "same", "L4-1": "replaced"}
    assert change.layers_gb == pytest.approx(6 * model.layer_gb)
    assert any("L4-1 is another machine (L4 in local before, T4 in local now)" in note for note in change.notes)


def test_nodes_of_one_cluster_only(problem, model):
    grown = cluster(nodes=[{"gpu": "L4", "count": 5}, {"gpu": "T4", "name": "more"}])
    old = plan_of(problem, {"L4-0": (0, 6), "L4-1": (6, 12)})
    new = plan_of(hk.Problem.of(grown, model), {"L4-0": (0, 6), "more": (6, 12)})
    assert {n.node: n.change for n in old.diff(new).nodes} == {"L4-0": "same", "more": "joins", "L4-1": "leaves"}
    assert {n.node: n.change for n in new.diff(old).nodes} == {"L4-0": "same", "L4-1": "joins", "more": "leaves"}


def test_another_model_is_loaded_whole(problem, model):
    spans = {"L4-0": (0, 6), "L4-1": (6, 12)}
    other = hk.Problem.of(cluster(), model.model_copy(update={"name": "other"}))
    change = plan_of(problem, spans).diff(plan_of(other, spans))
    assert change.layers_gb == pytest.approx(12 * model.layer_gb) and change.tables_gb > 0
    assert "the models differ (tiny and other)" in change.notes[0]
    assert change.figures()["Plan"][:2] == ("tiny on five", "other on five")


def test_flows_that_count_with_other_speeds_or_requests_are_not_compared_silently():
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G", "count": 2}]})
    ours, vllm, long = (
        hk.plan(cluster, "llama3.1-8b", method="swarm", **options)
        for options in ({}, {"engine": "vllm-0.15"}, {"workload": (3000, 10)})
    )
    assert ours.diff(ours).notes == ()
    [speeds] = ours.diff(vllm).notes
    assert speeds.startswith("the flows cannot be compared: ") and "their profiles or engines differ" in speeds
    [lengths] = ours.diff(long).notes
    assert "requests of other lengths (763 tokens in and 232 out" in lengths and "engines" not in lengths


def test_plans_without_flow_or_served_figures(problem):
    empty = plan_of(problem, {"L4-0": (0, 6)})
    whole = plan_of(problem, {"L4-0": (0, 12)})
    assert empty.diff(whole).figures()["Flow, tokens/s"][2] == "", "no share of nothing"
    assert empty.diff(whole).before.stages == 0
    served = whole.model_copy(update={"served": Served(decode_tokens_per_s=5.0)})
    assert whole.diff(served).figures()["Served, decode tokens/s"] == ("-", "5", "")


def test_anything_but_a_plan_is_refused(problem):
    plan = plan_of(problem, {"L4-0": (0, 12)})
    with pytest.raises(hk.InputError, match="expected a plan"):
        plan.diff({"L4-0": (0, 12)})


def test_a_plan_made_from_another_says_what_moves(helix_kit, tmp_path):
    path = tmp_path / "old.json"
    case = ("single24", "--model", "llama-30b")
    assert helix_kit("plan", *case, "--method", "petals", "-o", path)[0] == 0
    code, out, err = helix_kit("plan", *case, "--from-plan", path, "--time-limit", 10)
    assert code == 0, err
    assert f"From {path} to this plan" in " ".join(out.split()) and "To load:" in out and "moves" in out
