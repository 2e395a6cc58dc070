"""The published runs as read from the data folder."""

from helix_kit.experiments.figures.common.published import (
    LENGTHS_IN_SAMPLER,
    STREAM_SEEDS,
    layout_plan,
    offline_requests,
    published_run,
    published_runs,
)


def test_separate_subclusters_hold_different_machines_and_serve_different_requests():
    run = published_run("single", "llama-30b", "helix", "online")
    assert [s.name for s in run.subclusters] == ["a100", "l4", "t4"]
    held = [set(plan.placement) for plan in run.plans()]
    assert not held[0] & held[1] and not held[1] & held[2] and not held[0] & held[2]
    # The offered rates are those of the paper's three subclusters.
    assert [s.offered_tokens_per_s for s in run.subclusters] == [600, 200, 170]
    assert len({len(s.requests()) for s in run.subclusters}) == 3


def test_offline_runs_share_one_stream_and_only_helix_has_the_default_feed():
    helix = published_run("geo", "llama2-70b", "helix", "offline")
    assert helix.simulations()[0].workload is offline_requests() and helix.simulations()[0].feed is None
    swarm = published_run("geo", "llama2-70b", "swarm", "offline").simulations()[0]
    assert swarm.feed.shared_draws is None and swarm.feed.kv_mark is None
    random = published_run("scheduling", "llama2-70b", "random", "offline").simulations()[0]
    assert random.feed.shared_draws == LENGTHS_IN_SAMPLER and random.policy == "random"


def test_streams_of_other_seeds_are_other_requests_and_as_many():
    lengths = [[(r.input_tokens, r.output_tokens) for r in offline_requests(seed)] for seed in STREAM_SEEDS]
    assert [len(each) for each in lengths] == [8000] * 6
    assert len({tuple(each[:3]) for each in lengths}) == 6
    # Means of the trace that the sampler draws from (Azure conversation, as the paper cuts it).
    for each in lengths:
        inputs, outputs = (sum(column) / len(each) for column in zip(*each, strict=True))
        assert abs(inputs - 763.1) < 25 and abs(outputs - 232.4) < 8


def test_windows_are_those_of_the_paper():
    offline, online = (
        published_run("geo", "llama2-70b", "helix", mode).simulations()[0] for mode in ("offline", "online")
    )
    assert (offline.warmup_s, offline.duration_s) == (60.0, 600.0)
    assert (online.warmup_s, online.duration_s) == (0.0, 1800.0)


def test_the_flow_of_a_layout_is_the_published_one():
    plan = layout_plan("single_cluster/llama70b/ilp", "llama2-70b")
    out = sum(rate for (source, _), rate in plan.flow_edges.items() if source == "coordinator")
    back = sum(rate for (_, target), rate in plan.flow_edges.items() if target == "coordinator")
    assert plan.flow_tokens_per_s == out and abs(out - back) < 0.01


def test_runs_are_in_the_order_of_the_paper():
    sections = [run.section for run in published_runs()]
    assert sections == sorted(sections)
