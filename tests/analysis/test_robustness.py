"""Plans under wrong profiles."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, InputError, Model, Problem, plan
from helix_kit.analysis import robustness
from helix_kit.analysis.robustness import scaled
from helix_kit.simulator import score


@pytest.fixture(scope="module")
def mixed_plan():
    cluster = Cluster.model_validate(
        {"name": "mixed", "nodes": [{"gpu": "A100-40G", "count": 2}, {"gpu": "L4", "count": 6}]}
    )
    return plan(cluster, Model.preset("llama-30b"))


def test_slower_machines_serve_less_and_the_factor_is_the_times(mixed_plan):
    slow = Problem.of(mixed_plan.cluster, mixed_plan.model, scaled(mixed_plan.profiles, {"L4": 1.2}))
    before = mixed_plan.problem
    profile, slower = before.profiles["L4"], slow.profiles["L4"]
    assert slower.step_ms(300, 8) == pytest.approx(1.2 * profile.step_ms(300, 8))
    assert slow.throughput("L4-0", 5) < before.throughput("L4-0", 5)
    # T(k) is iterated over all kinds together, so a slow L4 shows in the fourth digit of the A100.
    assert slow.throughput("A100-40G-0", 5) == pytest.approx(before.throughput("A100-40G-0", 5), rel=1e-3)


def test_table_holds_the_plan_and_the_heuristics(mixed_plan):
    table = robustness(mixed_plan, samples=12, seed=3)
    assert table["method"].tolist()[0] == mixed_plan.method and {"swarm", "petals"} <= set(table["method"])
    assert (table["worst"] <= table["p5"] + 1e-9).all() and (table["p5"] <= table["mean"]).all()
    own = table.iloc[0]
    assert own["as_planned_tokens_per_s"] == pytest.approx(mixed_plan.flow_tokens_per_s)
    assert own["worst"] < own["as_planned_tokens_per_s"]
    assert table["beaten_by_plan_percent"].iloc[1:].between(0, 100).all()
    assert table.equals(robustness(mixed_plan, samples=12, seed=3)), "same seed, same table"


def test_no_error_means_no_difference(mixed_plan):
    table = robustness(mixed_plan, error=1e-9, samples=2, against=["swarm"])
    assert table["mean"].to_numpy() == pytest.approx(table["as_planned_tokens_per_s"].to_numpy(), rel=1e-4)
    with pytest.raises(InputError, match="error"):
        robustness(mixed_plan, error=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["single24", "geo24"])
def test_served_plan_stays_ahead_with_wrong_profiles(cluster):
    chosen = plan(cluster, "llama2-70b", objective="served", max_simulations=40, time_limit_s=600)
    table = robustness(chosen, samples=20, measure="served", against=["swarm", "petals", "separate", "proportional"])
    assert len(table) >= 3
    assert (table["beaten_by_plan_percent"].iloc[1:] >= 90).all(), table


def test_what_no_machine_holds_is_no_rival():
    """Separate pipelines of 70B on single24 put 20 layers on an A100, which holds 12."""
    petals = plan("single24", "llama2-70b", method="petals")
    table = robustness(petals, samples=1, against=["separate", "swarm"], measure="served", duration_s=10.0)
    assert table["method"].tolist() == ["petals", "swarm"]
    assert "separate" in set(robustness(petals, samples=1, against=["separate"])["method"])


def test_served_measure_is_the_simulators(mixed_plan):
    table = robustness(mixed_plan, error=1e-9, samples=1, against=["swarm"], measure="served", duration_s=20.0)
    own = table.iloc[0]
    assert own["mean"] == pytest.approx(score(mixed_plan, duration_s=20.0).decode_tokens_per_s, rel=0.02)
    assert own["as_planned_tokens_per_s"] == pytest.approx(own["mean"], rel=0.02)
    with pytest.raises(InputError, match="measure"):
        robustness(mixed_plan, measure="speed")
