"""Our plans beside the published ones: each step changes one thing, and no stream is one of a search."""

import pytest

from helix_kit.experiments.figures.common import comparison
from helix_kit.experiments.figures.common.comparison import Means, means_of, on_stream, variants
from helix_kit.experiments.figures.common.published import STREAM_SEEDS, offline_requests
from helix_kit.experiments.figures.common.served_plans import served_plan
from helix_kit.experiments.figures.common.settings import SETTINGS
from helix_kit.workload import Workload

SETTING = SETTINGS["geo", "llama2-70b"]


@pytest.fixture(scope="module")
def steps():
    return variants(SETTING, served_plan("offline", "geo24", "llama2-70b"))


def test_each_step_changes_one_thing(steps):
    published, split, fair = (steps[name][0] for name in ("published", "our split", "fair base"))
    assert list(steps) == list(comparison.LABELS)
    assert published.plan.placement == split.plan.placement == fair.plan.placement
    # The flow is as large; only its split over the published links is another one.
    assert split.plan.flow_tokens_per_s == pytest.approx(published.plan.flow_tokens_per_s, rel=0.01)
    assert set(split.links) <= set(published.links) and dict(split.plan.flow_edges) != dict(published.plan.flow_edges)
    assert fair.links is None and fair.plan.flow_tokens_per_s >= split.plan.flow_tokens_per_s
    ours, first = steps["ours"][0], steps["ours, first split"][0]
    assert ours.plan.placement == first.plan.placement != published.plan.placement


def test_a_plan_with_the_first_flow_found_has_no_step_of_our_split():
    plan = served_plan("offline", "geo24", "llama2-70b").model_copy(update={"flow_split": "any"})
    assert list(variants(SETTING, plan)) == ["published", "fair base", "ours"]


def test_published_30b_plans_stay_separate_as_long_as_their_links_are_theirs():
    steps = variants(SETTINGS["single", "llama-30b"], served_plan("offline", "single24", "llama-30b"))
    assert [len(steps[name]) for name in steps] == [3, 3, 1, 1, 1]


def test_no_reported_stream_is_one_that_a_search_draws():
    """Searches draw with the package's sampler, from any seed; the reported streams are the published sampler's."""
    searched = [[(r.input_tokens, r.output_tokens) for r in Workload.offline(1000, seed=seed)] for seed in range(4)]
    for seed in STREAM_SEEDS:
        reported = [(r.input_tokens, r.output_tokens) for r in offline_requests(seed)]
        shared = [sum(a == b for a, b in zip(reported, other, strict=False)) for other in searched]
        assert max(shared) < 20


def test_means_are_over_streams_and_the_published_one_is_first(steps):
    def run(simulations):
        seed = next(s for s in STREAM_SEEDS if simulations[0].workload is offline_requests(s))
        names = ("prompt_latency_avg_s", "prompt_latency_p95_s", "decode_latency_avg_s", "decode_latency_p95_s")
        return {"decode_tokens_per_s": 10.0 + seed, **{name: float(seed + i) for i, name in enumerate(names)}}

    means = means_of(steps["ours"], run)
    assert (means.decode_tokens_per_s, means.first_stream_tokens_per_s) == (12.5, 10.0)
    assert means.latency_s == {"prompt": 2.5, "decode": 4.5} and means.p95_s == {"prompt": 3.5, "decode": 5.5}
    assert [one.workload for one in on_stream(steps["published"], 2)] == [offline_requests(2)]


def test_missed_latencies_are_named_with_both_numbers():
    base = Means(1.0, 1.0, {"prompt": 2.21, "decode": 1.05}, {})
    assert Means(1.0, 1.0, {"prompt": 2.25, "decode": 1.01}, {}).missed(base) == ["prompt: 2.25 s beside 2.21 s"]
