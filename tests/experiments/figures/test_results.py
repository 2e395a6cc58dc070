"""The one table with all results."""

from committed import DEEP_DIVES, EVALUATIONS, FIGURES

from helix_kit.experiments.machinery.files import load


def test_all_results_hold_every_metric_once():
    table = load("all-results", FIGURES)
    keys = ["section", "setup", "model", "mode", "method", "source", "metric"]
    assert not table.duplicated(keys).any()
    assert len(table) == sum(len(load(name, FIGURES)) for name in (*EVALUATIONS, *DEEP_DIVES))
