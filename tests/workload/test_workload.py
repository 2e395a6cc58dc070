"""Workloads: slices, scaling, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.workload import Workload, make_workload


def lengths(workload: Workload) -> np.ndarray:
    return np.array([(r.input_tokens, r.output_tokens) for r in workload], dtype=float)


def test_constant_and_offline():
    assert [r.arrival_s for r in Workload.constant(rate_per_s=2.0, duration_s=2.0)] == [0.0, 0.5, 1.0, 1.5]
    backlog = Workload.offline(50, seed=4)
    assert len(backlog) == 50 and {r.arrival_s for r in backlog} == {0.0}


def test_slices_keep_ids_and_scaling_keeps_lengths():
    workload = Workload.poisson(rate_per_s=1.0, duration_s=100, seed=0)
    part = workload[5:8]
    assert isinstance(part, Workload) and [r.id for r in part] == [5, 6, 7]
    faster = workload.scaled(4.0)
    assert faster.rate_per_s == pytest.approx(4.0)
    assert (lengths(faster) == lengths(workload)).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Workload.azure_conversation(rate_per_s=0, duration_s=10),
        lambda: Workload.poisson(rate_per_s=1, duration_s=float("inf")),
        Workload.offline,
        lambda: Workload.offline(0),
        lambda: Workload.of([(-1.0, 1, 1)]),
        lambda: Workload.of([(0.0, 0, 1)]),
    ],
)
def test_impossible_workloads_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_only_requests_within_the_limits_are_kept():
    workload = Workload.of([(0, 10, 5), (1, 20, 5), (2, 10, 9)])
    kept = workload.limited(max_input=15, max_output=6)
    assert [(r.id, r.arrival_s, r.input_tokens) for r in kept] == [(0, 0, 10)]
    assert workload.limited() == workload


def test_a_backlog_is_as_large_as_the_plan_serves():
    """One A100 with a small model serves more than 20 requests a second: the backlog follows the plan's flow."""
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G"}]})
    problem = Problem.of(cluster, Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, {"A100-40G-0": (0, 30)}, method="by hand")
    requests = make_workload("azure-conversation", plan, mode="offline", duration_s=10.0)
    tokens = sum(r.input_tokens + r.output_tokens for r in requests)
    assert tokens > plan.flow_tokens_per_s * 10.0 and len(requests) > 10.0 / 0.05
    fixed = make_workload("constant", plan, mode="offline", duration_s=10.0)
    assert sum(r.input_tokens + r.output_tokens for r in fixed) > plan.flow_tokens_per_s * 10.0
    assert {r.arrival_s for r in fixed} == {0.0}


def test_the_usual_load_is_a_share_of_the_flow_whatever_the_lengths(overlapping_plan):
    for name in ("azure-conversation", "azure-code", "poisson"):
        load = make_workload(name, overlapping_plan, duration_s=200_000.0)
        tokens = sum(r.input_tokens + r.output_tokens for r in load)
        assert tokens / 200_000 == pytest.approx(0.75 * overlapping_plan.flow_tokens_per_s, rel=0.05), name


def test_shortened_cuts_long_requests_and_says_how_many() -> None:
    workload = Workload.of([(0.0, 50, 9), (1.0, 500, 9), (2.0, 50, 90)], "three")
    short = workload.shortened(60, 10)
    assert [(r.arrival_s, r.input_tokens, r.output_tokens) for r in short] == [(0, 50, 9), (1, 60, 9), (2, 50, 10)]
    assert short.notes == ("2 of 3 requests were longer, and are cut to 60 tokens in and 10 tokens out",)
    assert workload.shortened() == workload and workload.shortened(500).notes == ()
    with pytest.raises(InputError, match="max_output = 0: expected at least one token"):
        workload.shortened(max_output=0)
