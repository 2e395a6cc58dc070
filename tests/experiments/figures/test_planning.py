"""Max flow by placement method."""

from committed import FIGURES

from helix_kit.experiments.machinery.files import load


def test_methods_stay_within_the_bound():
    table = load("placement-methods", FIGURES)
    # The published separate pipelines put more layers on machines than their maximum: they are not held by it.
    table = table[table["method"] != "separate"]
    bound = table.groupby(["cluster", "model"])["bound_tokens_per_s"].transform("min")
    assert (table["flow_tokens_per_s"] <= bound * (1 + 1e-6)).all()
    best = table.loc[table.groupby(["cluster", "model"])["flow_tokens_per_s"].idxmax()]
    assert (best["flow_tokens_per_s"] / bound[best.index] > 0.9).all()
