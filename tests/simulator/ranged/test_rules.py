"""Steps of our runtime: chunks of prompts, and ranges that are entered in the middle."""

from __future__ import annotations

import pytest

from helix_kit.scheduling import Policy
from helix_kit.simulator import BatchingOptions, simulate
from helix_kit.workload import Workload


def test_chunked_prefill_spares_decodes(plan):
    """The point of chunks: with whole prompts in one step, decode latency's tail is longer."""
    workload = Workload.azure_conversation(rate_per_s=1.5, duration_s=200, seed=2)
    chunked = simulate(plan, workload).summary()
    whole = simulate(plan, workload, options=BatchingOptions(step_tokens=4096, chunk_tokens=4096)).summary()
    assert chunked["decode_latency_s"]["p95"] < whole["decode_latency_s"]["p95"]


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
