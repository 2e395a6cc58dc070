"""Requests and window: long beside a stay, and shorter requests where there is no time."""

from __future__ import annotations

import pytest

from helix_kit import Cluster, Model, Plan, Problem, Workload
from helix_kit.experiments.evaluate.load import choose_loads
from helix_kit.experiments.evaluate.options import EvaluationOptions
from helix_kit.simulator import simulate


@pytest.fixture(scope="module")
def plan() -> Plan:
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G"}]})
    problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    return Plan.from_placement(problem, {"A100-40G-0": (0, 30)}, method="hand")


def test_given_seconds_are_kept_and_requests_are_not_touched(plan: Plan):
    load = Workload.constant(5.0, 4.0, input_tokens=100, output_tokens=20)
    options = EvaluationOptions(workload=load, duration_s=6.0, warmup_s=2.0)
    loads = choose_loads({"a": plan}, 2, options)
    assert loads["online"].window == loads["offline"].window == (2.0, 8.0)
    online = loads["online"].requests
    assert {(r.input_tokens, r.output_tokens) for r in online} == {(100, 20)}
    assert len(online) == pytest.approx(5.0 * 8.0, abs=1) and online.duration_s < 8.0
    assert {r.arrival_s for r in loads["offline"].requests} == {0.0} and loads["offline"].max_in_flight is None


def test_where_time_is_short_requests_are_and_the_load_in_tokens_stays():
    """On the fast CPU kind a step of 30 layers takes tens of ms, so that 400 tokens do not fit into 6 s."""
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    slow = Plan.from_placement(problem, {"CPU-fast-0": (0, 16), "CPU-medium-0": (16, 30)}, method="hand")
    load = Workload.constant(0.02, 500.0, input_tokens=400, output_tokens=400)
    options = EvaluationOptions(workload=load, workers="emulated", time_scale=2.0, minutes=0.4)
    loads = choose_loads({"a": slow}, 2, options)
    online = loads["online"]
    # 24 s for two runs at half speed.
    assert online.window == (pytest.approx(2.25), pytest.approx(6.0))
    (pair,) = {(r.input_tokens, r.output_tokens) for r in online.requests}
    assert pair[0] == pair[1] < 200 and "times as long" in online.notes[0]
    assert online.requests.rate_per_s * sum(pair) == pytest.approx(0.02 * 800, rel=0.05)
    run = simulate(slow, online.requests, duration_s=30.0)
    assert run.measures()["e2el_s"].mean() < 6.0 / 3
    assert loads["offline"].max_in_flight == pytest.approx(slow.flow_tokens_per_s / sum(pair) * 6 / 4, abs=2)
