"""Our plans: their flow, their bound, and what they serve."""

import pytest
from committed import EVALUATIONS, FIGURES, speeds

from helix_kit.experiments.machinery.files import load


def test_the_plan_for_flow_carries_most_and_stays_within_its_bound():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    for _, part in table.groupby(["setup", "model"]):
        flow = part.set_index("objective")["flow_tokens_per_s"]
        assert flow["flow"] >= max(flow["published"], flow["served"]) - 0.01
        assert flow["flow"] <= part["bound_tokens_per_s"].min() * (1 + 1e-6)


def test_what_own_plans_serve_is_what_the_evaluation_says():
    table = load("own-plans", FIGURES).drop_duplicates(["setup", "model", "objective"])
    found = {key: v for name in EVALUATIONS for key, v in speeds(name).items()}
    names = {"published": "helix", "flow": "own flow", "served": "own served"}
    for row in table.to_dict("records"):
        values = found[row["setup"], row["model"], "offline"]
        assert row["offline_decode_tokens_per_s"] == pytest.approx(values[names[row["objective"]]], rel=1e-5)
