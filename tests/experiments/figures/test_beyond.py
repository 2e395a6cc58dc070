"""Figures beyond the paper: scale, wrong profiles, modern models."""

from committed import FIGURES

from helix_kit.experiments.machinery.files import load


def test_modern_plans_stay_within_their_bound_and_ours_is_the_best():
    table = load("modern-models", FIGURES)
    for _, part in table.groupby(["mix", "model"]):
        flow = part.set_index("method")["flow_tokens_per_s"]
        assert flow.idxmax() == "pattern" and flow.max() <= part["bound_tokens_per_s"].min() * (1 + 1e-6)


def test_plans_under_wrong_profiles():
    table = load("robustness", FIGURES).set_index(["cluster", "method"])
    assert (table["worst"] <= table["p5"]).all() and (table["p5"] <= table["mean"]).all()
    best = table["worst"].groupby("cluster").idxmax()
    assert all(method == "own flow" for _, method in best)


def test_planning_a_thousand_machines_stays_close_to_its_bound():
    table = load("scaling", FIGURES)
    assert table["nodes"].max() == 1000 and table["gap"].max() < 0.03
    assert set(table.attrs) == {str(n) for n in table["nodes"]}
