"""The record of what a plan served: the JSON of plan.json as it always was, values by attribute."""

import json

import pytest

from helix_kit import Plan
from helix_kit.placement.served import Served

WRITTEN = {
    "decode_tokens_per_s": 310.5,
    "prompt_latency_s": 2.5,
    "mode": "offline",
    "seeds": [1, 2],
    "stages": 9,
    "progress": [[0.5, 300.0], [1.5, 310.5]],
    "pareto": [{"decode_tokens_per_s": 310.5, "stages": 9, "ease": {}, "placement": {"T4-0": [0, 4]}}],
    "ease": {"T4": 0.5},
    "of_a_later_version": [1],
}


def test_json_is_what_was_read(overlapping_plan, tmp_path):
    """Fields that an older version did not write stay away, and those of a later one stay."""
    data = json.loads(overlapping_plan.to_json())
    assert data["served"] is None
    data["served"] = WRITTEN
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    plan = Plan.load(path)
    assert plan.to_json() == path.read_text()
    plan.save(path)
    assert Plan.load(path) == plan


def test_values_by_attribute_and_by_name():
    served = Served.model_validate(WRITTEN)
    assert served.decode_tokens_per_s == served["decode_tokens_per_s"] == 310.5
    assert served.pareto[0].placement == {"T4-0": (0, 4)}
    assert list(served) == served.keys() == list(WRITTEN)
    assert served.max_flow_gap is None and "max_flow_gap" not in served
    assert served.get("max_flow_gap", 1.0) == 1.0 and served.get("stages") == 9
    assert served["of_a_later_version"] == [1]
    with pytest.raises(KeyError):
        served["max_flow_gap"]


def test_no_rate_is_stated_where_none_was_simulated():
    told = {"slo": "TTFT <= 2 s for 90 % of the requests", "rate_per_s": None, "slo_rate_per_s": 0.0}
    assert Served(**told).goodput_text == "nothing was measured in the time (TTFT <= 2 s for 90 % of the requests)"
    measured = Served(**told | {"slo_rate_per_s": 3.5, "window_s": 60.0, "goodput_per_s": 3.4, "attainment": 0.95})
    assert measured.goodput_text.startswith("the SLO holds until 3.5 requests/s")
