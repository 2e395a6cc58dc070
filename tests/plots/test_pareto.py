"""The Pareto picture: a point a plan, the chosen one marked; by method and by command."""

import pytest

import helix_kit as hk
from helix_kit.plots.pareto import plot_pareto

QUICK = {"max_simulations": 4, "window_s": 10.0, "jobs": 1, "time_limit_s": 60}


@pytest.fixture(scope="module")
def served():
    return hk.plan("single24", "llama2-70b", objective="served", **QUICK)


def test_points_are_the_front_and_the_plan_is_marked(served, tmp_path):
    axes = plot_pareto(served).axes[0]
    drawn, ring = (collection.get_offsets().tolist() for collection in axes.collections)
    rows = served.served.pareto
    assert drawn == [[r.decode_latency_s, r.decode_tokens_per_s] for r in rows]
    assert ring == [[served.served.decode_latency_s, served.served.decode_tokens_per_s]]
    assert f"chosen, {served.served.stages} stages" in [t.get_text() for t in axes.texts]
    served.pareto(tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes()[1:4] == b"PNG"


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
