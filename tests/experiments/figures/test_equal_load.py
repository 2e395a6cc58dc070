"""Load rules deal out every request, and the committed table holds the rules."""

from committed import FIGURES, SPEED

from helix_kit import Workload
from helix_kit.experiments.figures.equal_load import dealt, faster
from helix_kit.experiments.machinery.files import load


def test_requests_are_dealt_in_proportion_and_none_is_lost():
    requests = Workload.of([(float(i), 10 + i, 5) for i in range(90)])
    hands = dealt(requests, (2.0, 1.0, 0.0))
    assert [len(h) for h in hands] == [60, 30, 0]
    assert sorted(r.input_tokens for h in hands for r in h) == [r.input_tokens for r in requests]
    quick = faster(requests, 2.0)
    assert [r.arrival_s for r in quick[:3]] == [0.0, 0.5, 1.0] and quick[5].input_tokens == 15


def test_under_equal_load_all_are_offered_the_same_and_the_plan_made_to_serve_leads():
    table = load("equal-load", FIGURES)
    wide = table.pivot_table(index=["setup", "source", "method"], columns="metric", values="value")
    for setup in ("single", "geo", "hetero42"):
        same = wide.loc[setup, "same rate"]
        assert same["offered_tokens_per_s"].nunique() == 1
        assert same[SPEED].idxmax() == "own served"
        assert same[SPEED]["helix"] > same[SPEED]["swarm"]
        assert same["decode_latency_p50_s"]["own served"] < same["decode_latency_p50_s"]["helix"]
        own_rate = wide.loc[setup, "rate by own max flow"]
        # Loads are in proportion to max flow: most for the plan of most flow, and Helix's own is the unit.
        assert own_rate["offered_tokens_per_s"].idxmax() == "own flow"
        assert own_rate.loc["helix"].equals(same.loc["helix"])
