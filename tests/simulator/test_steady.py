"""The steady estimate: which requests fill the caches, and what a long run says."""

from dataclasses import replace

import numpy as np
import pytest

import helix_kit as hk
from helix_kit.simulator import Score, Window, score, steady_score, steady_use, whole_run
from helix_kit.simulator.steady import in_progress, lengths_of, stream
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths
from helix_kit.workload import Workload


@pytest.fixture(scope="module")
def plan():
    cluster = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    return hk.plan(cluster, hk.Model.preset("llama-30b"), method="proportional")


def test_long_outputs_are_met_more_often():
    """Three requests of 1, 3 and 9 output tokens decode 0, 2 and 8 times: four of five in a cache are the longest."""
    sample = lengths_of([(10, 9), (20, 1), (30, 3)])
    met, done = in_progress(sample, 1000, np.random.default_rng(0))
    assert [int((met[:, 1] == o).sum()) for o in (1, 3, 9)] == [0, 200, 800]
    assert done.min() == 1
    assert (done < met[:, 1]).all()
    assert done[met[:, 1] == 9].mean() == pytest.approx(4.5, abs=0.2)


def test_a_stretch_of_the_stream_has_the_mean_of_the_sample():
    sample = lengths_of()
    first = stream(sample, 40, np.random.default_rng(3))
    assert first[:, 1].mean() == pytest.approx(sample[:, 1].mean(), rel=0.05)
    assert not np.array_equal(first, np.sort(first, axis=0)), "they come in random order"


def test_requests_of_one_output_token_fill_no_cache():
    sample = lengths_of([(10, 1)])
    met, done = in_progress(sample, 10, np.random.default_rng(0))
    assert len(met) == len(done) == 0


def test_lengths_are_those_that_a_plan_is_for():
    own = lengths_of((), MeanLengths(100.0, 500.0))
    assert own.mean(axis=0) == pytest.approx((100, 500), rel=0.01)
    assert lengths_of((), TRACE_LENGTHS).mean(axis=0) == pytest.approx(lengths_of().mean(axis=0))


def test_equals_a_long_run_from_an_empty_start(plan):
    window = Window(requests=300, lives=1.0)
    short = [steady_score(plan, window=window, seed=s) for s in range(3)]
    mean = np.mean([s.decode_tokens_per_s for s in short])
    long = score(plan, execution="range", warmup_s=600.0, duration_s=3000.0)
    assert mean == pytest.approx(long.decode_tokens_per_s, rel=0.04)
    assert all(0 < s.half_width_tokens_per_s < 0.2 * mean for s in short)
    assert short[0].decode_latency_s == pytest.approx(long.decode_latency_s, rel=0.06)


def test_the_use_of_nodes_equals_that_of_a_long_run(plan):
    short = steady_use(plan, window=Window(requests=300, lives=1.0))
    long = whole_run(plan, Workload.offline(6000), mode="offline", warmup_s=600.0, duration_s=3000.0).nodes
    assert set(short) == set(long)
    for name, use in short.items():
        assert use.busy == pytest.approx(long[name].busy, abs=0.04)
        assert use.blocked == pytest.approx(long[name].blocked, abs=0.04)
        share = use.kv_mean / use.kv_capacity
        assert share == pytest.approx(long[name].kv_mean / long[name].kv_capacity, abs=0.05)


def test_a_short_run_says_what_a_long_one_does_where_prompts_limit():
    """A machine holds four hundred requests and decodes eighty at once: the others wait for their prompts."""
    cluster = hk.Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G", "count": 1}]})
    model = hk.Model(
        name="small", num_layers=28, hidden_size=3584, num_heads=28, num_kv_heads=4, intermediate_size=18944,
        vocab_size=152064,
    )  # fmt: skip
    plan = hk.plan(cluster, model, method="petals", prove=False)
    long = steady_score(plan, window=Window(warmup_lives=2.0, lives=4.0)).decode_tokens_per_s
    short = [steady_score(plan, window=Window(100, 0.1, 0.3), seed=s).decode_tokens_per_s for s in range(4)]
    assert np.mean(short) == pytest.approx(long, rel=0.06)


def test_a_run_ends_after_the_most_tokens(plan):
    window = Window(requests=1, warmup_lives=0.5, lives=1.0)
    whole = steady_score(plan, window=window)
    cut = steady_score(plan, window=replace(window, most_tokens=int(0.75 * whole.decode_steps)))
    assert cut.share_of_window == 1
    assert cut.decode_steps == pytest.approx(0.3 * whole.decode_steps, rel=0.05), "six tenths are warm-up"


def test_a_plan_that_is_surely_behind_ends_early(plan):
    whole = steady_score(plan)
    early = steady_score(plan, at_least=3 * whole.decode_tokens_per_s)
    assert whole.share_of_window == 1
    assert early.share_of_window < 0.5
    assert early.decode_steps < 0.6 * whole.decode_steps


def test_a_plan_without_flow_serves_nothing(plan):
    assert steady_score((plan.problem, {"L4-0": (0, 10)}, None)) == Score()
