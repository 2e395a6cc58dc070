"""The paper's program as a method: why it ended, and what it offers beside the heuristics."""

import pytest

import helix_kit as hk


def test_paper_milp_says_why_it_ended():
    stopped = hk.plan("single24", "llama2-70b", method="paper-milp", stop=lambda: True)
    assert "(stopped)" in " ".join(stopped.notes)
    late = hk.plan("single24", "llama2-70b", method="paper-milp", time_limit_s=1)
    assert "(the time limit)" in " ".join(late.notes)
    done = hk.plan("cluster10", "llama-30b", method="paper-milp", mip_gap=100.0)
    assert "(ended within 100 of its bound)" in " ".join(done.notes)


@pytest.mark.parametrize("solver", ["highs", "glpk"])
def test_the_program_beats_the_heuristic_it_starts_from(solver):
    """A100 and two L4 over eight layers: the program proves its optimum, and the pattern method finds the same."""
    nodes = [{"gpu": "A100-40G"}, {"gpu": "L4", "count": 2}]
    cluster = hk.Cluster.model_validate({"name": "three", "nodes": nodes})
    model = hk.Model.preset("llama-30b").model_copy(update={"num_layers": 8})
    plan = hk.plan(cluster, model, method="paper-milp", solver=solver, time_limit_s=60, mip_gap=1e-6)
    pattern = hk.plan(cluster, model, time_limit_s=60)
    assert plan.flow_tokens_per_s == pytest.approx(pattern.flow_tokens_per_s, rel=1e-4)
    assert plan.flow_tokens_per_s <= plan.bound_tokens_per_s * (1 + 1e-6)
    assert plan.flow_tokens_per_s >= hk.plan(cluster, model, method="petals").flow_tokens_per_s


def test_links_left_out_prove_nothing(tmp_path):
    """A program with some links only bounds itself, and may be written to a file."""
    path = tmp_path / "program.lp"
    plan = hk.plan("cluster10", "llama-30b", method="paper-milp", degree=4, mip_gap=100.0, write_lp=path)
    assert "paper-milp" not in plan.bounds
    assert "total_flow:" in path.read_text()
    with pytest.raises(hk.InputError, match="cannot be written"):
        hk.plan("cluster10", "llama-30b", method="paper-milp", mip_gap=100.0, write_lp=tmp_path / "none" / "a.lp")
