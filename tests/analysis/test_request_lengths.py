"""Requests that a plan is judged with: of the lengths that it was made for."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit import Cluster, Model, Plan, Problem
from helix_kit.analysis.request_lengths import mean_context, pairs_of
from helix_kit.typical_request import KV_TOKENS, MeanLengths


def plan_for(lengths: MeanLengths | None) -> Plan:
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-80G"}]})
    problem = Problem.of(cluster, Model.preset("llama3.1-8b"), None, lengths)
    return Plan.from_placement(problem, {"A100-80G-0": (0, 32)}, method="hand")


def test_the_conversation_trace_needs_no_pairs():
    assert pairs_of(plan_for(None)) == () and mean_context(plan_for(None)) == KV_TOKENS


def test_means_that_were_given_are_one_pair():
    plan = plan_for(MeanLengths(4000, 300))
    assert pairs_of(plan) == ((4000, 300),) and mean_context(plan) == 4300


@pytest.mark.parametrize("means", [MeanLengths(210, 65, "own.csv"), MeanLengths(2047.8, 27.9, "azure-code")])
def test_lengths_of_a_trace_differ_and_have_its_means(means):
    pairs = np.array(pairs_of(plan_for(means)))
    assert len(np.unique(pairs, axis=0)) > 100 and len(pairs) <= 2500
    assert pairs.mean(axis=0) == pytest.approx([means.input_tokens, means.output_tokens], rel=0.05)
