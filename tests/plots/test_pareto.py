"""The Pareto picture: a point a plan, the chosen one marked; by method and by command."""

import pytest

import helix_kit as hk
from helix_kit.placement.served import ServedRow
from helix_kit.plots.pareto import plot_pareto

QUICK = {"max_simulations": 4, "window_s": 10.0, "jobs": 1, "time_limit_s": 60}


@pytest.fixture(scope="module")
def served():
    return hk.plan("single24", "llama2-70b", objective="served", **QUICK)


def test_the_plan_is_marked_and_colours_are_explained(served, tmp_path):
    figure = plot_pareto(served)
    axes, bar = figure.axes
    drawn, ring = (collection.get_offsets().tolist() for collection in axes.collections)
    assert ring == [[served.served.decode_latency_s, served.served.decode_tokens_per_s]] and ring[0] in drawn
    assert f"chosen, {served.served.stages} stages" in [t.get_text() for t in axes.texts]
    assert bar.get_ylabel() == "mean prompt latency (s)"
    assert f"{served.served.mode}, {served.served.execution} rules" in axes.get_ylabel()
    served.pareto(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes()[1:4] == b"PNG"


def test_a_plan_beaten_in_both_numbers_is_not_drawn_but_counted(served):
    numbers = [(300.0, 0.9, 2.0), (250.0, 0.95, 0.5), (200.0, 0.5, 1.0), (150.0, 0.6, 3.0), (240.0, 0.9, 9.0)]
    rows = [ServedRow(decode_tokens_per_s=v, decode_latency_s=s, prompt_latency_s=p, stages=9) for v, s, p in numbers]
    plan = served.model_copy(update={"served": served.served.model_copy(update={"pareto": tuple(rows)})})
    axes = plot_pareto(plan).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[0.5, 200.0], [0.9, 300.0]]
    assert axes.collections[0].get_array().tolist() == [1.0, 2.0]
    assert "3 plans are not drawn" in axes.get_title()


def test_a_plan_for_flow_has_no_front():
    with pytest.raises(hk.InputError, match="objective"):
        hk.plan("single24", "llama2-70b", method="swarm").pareto()


def test_command_refuses_it_for_flow(helix_kit, tmp_path):
    code, _, err = helix_kit(
        "plan", "single24", "--model", "llama2-70b", "--objective", "flow", "--pareto-png", tmp_path / "front.png"
    )
    assert code == 2 and "--pareto-png" in err


def test_command_names_the_kinds_of_picture_before_the_search(helix_kit, tmp_path):
    code, _, err = helix_kit("plan", "single24", "--model", "llama2-70b", "--pareto-png", tmp_path / "front.txt")
    assert code == 2 and "--pareto-png" in err and ".png, .pdf, .svg" in err
