"""A run that starts in the middle: what the caches hold, and that no token of its requests is lost."""

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.placement import Plan, Problem
from helix_kit.simulator.options import SimulationOptions
from helix_kit.simulator.ranged.driver import ranged_engine
from helix_kit.simulator.ranged.filled import fill
from helix_kit.workload.request import Request


@pytest.fixture(scope="module")
def plan():
    cluster = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    return hk.plan(cluster, hk.Model.preset("llama-30b"), method="proportional")


def started(plan, cached=400, new=5):
    requests = [Request(i, 0.0, 500, 40) for i in range(cached + new)]
    options = SimulationOptions(mode="offline", execution="range", duration_s=60.0, warmup_s=0.0)
    engine = ranged_engine(plan, requests, options.with_window(requests))
    return engine, fill(engine, [1 + i % 39 for i in range(cached)], 0)


def test_the_caches_are_full_and_the_stream_follows(plan):
    engine, admitted = started(plan)
    assert 0 < admitted < 400
    free = [engine.kv.capacity[n] - engine.kv.used(n) for n in plan.placement]
    assert min(free) < engine.kv.pages(540, 10), "the fullest node has no room for another request"
    assert min(free) >= 0
    assert engine.issued == 400


def test_each_request_generates_what_it_had_left(plan):
    engine, admitted = started(plan)
    engine.run(10_000.0, lambda now_s: None, 1_000.0)
    count = np.bincount(engine.log.arrays.token_request[: int(engine.clock[0]["tokens"])], minlength=405)
    decoding = [at for at in range(admitted) if count[at] < 40]
    assert decoding, "some requests were decoding"
    assert all(count[at] in (40, 40 - (1 + at % 39)) for at in range(admitted))
    assert not count[admitted:400].any()
    assert (count[400:] == 40).all()
    assert not engine.live


@pytest.fixture(scope="module")
def row():
    """A fast machine in front of a slow one, with far more room for requests than decode at once."""
    cluster = hk.Cluster.model_validate(
        {"name": "row", "nodes": [{"gpu": "H100-80G", "count": 1}, {"gpu": "A100-80G", "count": 1}]}
    )
    problem = Problem.of(cluster, hk.Model.preset("llama-30b").model_copy(update={"num_layers": 20}))
    placement = {"H100-80G-0": (0, 6), "A100-80G-0": (6, 20)}
    return Plan.from_placement(problem, placement, method="own", flow=problem.max_flow(placement))


def test_those_that_wait_have_the_lengths_of_requests_that_arrive(row):
    requests = [Request(i, 0.0, 500, 40) for i in range(905)]
    engine = ranged_engine(row, requests, SimulationOptions(mode="offline", duration_s=60.0, warmup_s=0.0))
    fill(engine, [1 + i % 39 for i in range(900)], 0, [(300, 7)] * 900)
    decoding = {at for at in engine.live if engine.state.requests[at]["done"] > 0}
    waiting = set(engine.live) - decoding
    assert decoding
    assert len(waiting) > len(decoding)
    assert {(engine.requests[at].input_tokens, engine.requests[at].output_tokens) for at in decoding} == {(500, 40)}
    assert {(engine.requests[at].input_tokens, engine.requests[at].output_tokens) for at in waiting} == {(300, 7)}
    pages = sum(engine.kv.pages(540 if at in decoding else 307, 6) for at in engine.live)
    assert engine.kv.used("H100-80G-0") == pages, "what was offered and withdrawn holds no pages"
    slow, fast = engine.setup.number_of["A100-80G-0"], engine.setup.number_of["H100-80G-0"]
    prompts = engine.state.inboxes["count"][1::2]
    assert prompts[slow] == 2 * len(waiting), "two chunks each, in front of the slow machine"
    assert prompts[fast] == 0
    engine.run(10_000.0, lambda now_s: None, 1_000.0)
    count = np.bincount(engine.log.arrays.token_request[: int(engine.clock[0]["tokens"])], minlength=905)
    assert all(count[at] == 7 for at in waiting), "each generates all its tokens"
    assert (count[900:] == 40).all()
