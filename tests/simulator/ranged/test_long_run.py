"""What nodes do in the long run, beside a step-by-step model of a node and small plans whose slowest place is known."""

from collections import Counter, deque

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.placement import Plan, Problem
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged.driver import ranged_engine
from helix_kit.simulator.ranged.long_run import LongRun, decodes_of_a_step
from helix_kit.workload.request import Request

STEP, CHUNK = 512, 256


def decodes_in_a_model(prompts, outputs, steps, rng):
    """Mean decodes of the later half of the steps of a node where prompts always wait, taken in order of arrival."""
    waiting, decoding, counts = deque(), [], []
    for step in range(steps):
        while len(waiting) < 50:
            at = rng.integers(len(prompts))
            chunks = [CHUNK] * (prompts[at] // CHUNK) + [prompts[at] % CHUNK] * (prompts[at] % CHUNK > 0)
            waiting.append((chunks, outputs[at]))
        budget, begun = STEP - len(decoding), []
        decoding = [left - 1 for left in decoding if left > 1]
        for at, (chunks, output) in enumerate(waiting):
            if chunks[0] <= budget:
                budget -= chunks.pop(0)
                if not chunks:
                    begun.append((at, output))
        for at, output in reversed(begun):
            del waiting[at]
            decoding.append(output)
        if step >= steps // 2:
            counts.append(len(decoding))
    return float(np.mean(counts))


@pytest.mark.parametrize(("shortest", "longest", "output"), [(20, 2000, 200), (300, 600, 100), (10, 200, 60)])
def test_decodes_are_those_of_a_node_stepped_by_hand(shortest, longest, output):
    rng = np.random.default_rng(0)
    prompts = rng.integers(shortest, longest, 500)
    outputs = rng.integers(output // 2, 3 * output // 2, 500)
    counted = decodes_in_a_model(prompts.tolist(), outputs.tolist(), 6000, rng)
    assert decodes_of_a_step(prompts, float(outputs.mean()), STEP, CHUNK) == pytest.approx(counted, rel=0.1)


def waiting_places(nodes, placement, bandwidth_gbps=100.0):
    """How many of 400 requests wait at each (stage, whether for its link) of the plan's only pipeline."""
    cluster = hk.Cluster.model_validate(
        {"name": "row", "nodes": nodes, "network": {"within_region": {"bandwidth_gbps": bandwidth_gbps}}}
    )
    problem = Problem.of(cluster, hk.Model.preset("llama-30b").model_copy(update={"num_layers": 12}))
    plan = Plan.from_placement(problem, placement, method="own", flow=problem.max_flow(placement))
    requests = [Request(i, 0.0, 700, 200) for i in range(50)]
    engine = ranged_engine(plan, requests, SimulationOptions(mode="offline", duration_s=1.0, warmup_s=0.0))
    long_run, rng = LongRun(engine, 40), np.random.default_rng(0)
    return Counter(long_run.waits_at(plan.pipelines[0][0], rng) for _ in range(400))


def test_prompts_wait_before_the_slowest_stage():
    nodes = [{"gpu": "A100-40G", "count": 1}, {"gpu": "T4", "count": 1}]
    assert waiting_places(nodes, {"A100-40G-0": (0, 9), "T4-0": (9, 12)}) == {(1, False): 400}


def test_stages_that_are_as_fast_share_what_waits():
    places = waiting_places([{"gpu": "L4", "count": 2}], {"L4-0": (0, 6), "L4-1": (6, 12)})
    assert places[0, False] == pytest.approx(200, abs=50)
    assert places[0, False] + places[1, False] == 400


def test_prompts_wait_for_a_thin_link():
    places = waiting_places([{"gpu": "L4", "count": 2}], {"L4-0": (0, 6), "L4-1": (6, 12)}, bandwidth_gbps=0.01)
    assert places == {(1, True): 400}
