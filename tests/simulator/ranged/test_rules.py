"""Steps of our runtime: chunks of prompts, and ranges that are entered in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles.profile import Curve, Profile
from helix_kit.scheduling import Policy
from helix_kit.simulator import BatchingOptions, NodeDies, simulate
from helix_kit.workload import Workload


def test_chunked_prefill_spares_decodes(plan):
    """The point of chunks: with whole prompts in one step, decodes wait longer on average."""
    workload = Workload.azure_conversation(rate_per_s=1.5, duration_s=200, seed=2)
    chunked = simulate(plan, workload).summary()
    whole = simulate(plan, workload, options=BatchingOptions(step_tokens=4096, chunk_tokens=4096)).summary()
    assert chunked["decode_latency_s"]["avg"] < 0.97 * whole["decode_latency_s"]["avg"]


def test_a_step_joins_pieces_in_the_middle_of_a_range(plan):
    """L4x2-1 holds [15, 35) and is entered at 20 from nodes that end there: the step pays only for layers 20 to 35."""
    inner = [p for p, _ in plan.pipelines if any(s.node == "L4x2-1" and s.start > 15 for s in p)]
    profile = plan.profiles["L4x2"]
    stage = next(s for s in inner[0] if s.node == "L4x2-1")

    class Only(Policy):
        def route(self, request, view):
            return inner[0]

    run = simulate(plan, Workload.of([(0.0, 200, 1)]), policy=Only(), record_batches=True)
    batch = next(b for b in run.batches if b.node == "L4x2-1")
    expected = (stage.end - stage.start) * profile.prefill_ms_per_layer(200) / 1e3
    copying = 200 * plan.model.activation_bytes_per_token * (1 / 4e9 + 1 / 5e9)
    assert batch.end_s - batch.start_s == pytest.approx(expected + copying, rel=1e-9)


def whole_model_on(*names: str) -> Plan:
    """Nodes with all six layers; a step takes 6 ms of prefill or decode, whatever its size, and a link 50 ms."""
    cluster = Cluster.model_validate(
        {
            "name": "one",
            "nodes": [{"name": name, "gpu": "T4"} for name in names],
            "network": {"within_region": {"bandwidth_gbps": 1000, "latency_ms": 50}},
        }
    )
    model = Model(
        name="small", num_layers=6, hidden_size=64, intermediate_size=96, num_heads=4, num_kv_heads=2, head_dim=16,
        vocab_size=256,
    )  # fmt: skip
    curve = Curve(x=(0.0, 1.0, 1e6), y=(0.0, 1.0, 1.0))
    profile = Profile(
        kind="T4", model="small", source="made up", prefill_ms_per_layer=curve, decode_ms_per_layer=curve,
        kv_capacity_layer_tokens=(40960,) * 6, prefill_max_requests=(4,) * 6, decode_max_requests=(64,) * 6,
    )  # fmt: skip
    problem = Problem(cluster, model, {"T4": profile}, {"T4": tuple(1000.0 / k for k in range(1, 7))})
    return Plan.from_placement(problem, dict.fromkeys(names, (0, 6)), method="by hand")


@pytest.mark.parametrize("goes_on, between_s", [(True, 0.006), (False, 0.106)])
def test_an_only_stage_decodes_without_waiting_for_the_coordinator(goes_on, between_s):
    """Between two tokens lies a step, and where the token must come back also both ways to the coordinator.

    The link is wider than the network card: it carries what the card does.
    """
    options = BatchingOptions(only_stage_goes_on=goes_on)
    run = simulate(whole_model_on("a"), Workload.of([(0.0, 20, 40)]), options=options, duration_s=30)
    [record] = run.records
    assert record.tokens_generated == 40
    assert np.diff(run.tokens.time_s) == pytest.approx(between_s, rel=0.01)
    assert record.first_token_s == pytest.approx(0.106, rel=0.01)


def test_requests_of_an_only_stage_share_its_steps():
    """Ten requests at once: one step for each token of all of them. They do not fall apart into halves."""
    run = simulate(whole_model_on("a"), Workload.of([(0.0, 20, 50)] * 10), record_batches=True, duration_s=30)
    assert all(record.tokens_generated == 50 for record in run.records)
    assert [(batch.prefill_tokens, batch.decode_requests) for batch in run.batches] == [(200, 0)] + [(0, 10)] * 49


def test_an_only_stage_that_fails_starts_its_requests_again_where_they_were():
    """Tokens that had not reached the coordinator are computed again; none comes twice."""
    plan = whole_model_on("a", "b")
    run = simulate(plan, Workload.of([(0.0, 20, 60)] * 6), faults=[NodeDies("a", at_s=0.3)], duration_s=30)
    assert {record.restarts for record in run.records} == {0, 1}
    assert all(record.outcome == "finished" for record in run.records)
    assert np.bincount(run.tokens.request).tolist() == [60] * 6
