"""Our own plans as read from the committed table, and the requests of several subclusters together."""

import pytest
from committed import FIGURES

from helix_kit.experiments.figures.common.published import published_run
from helix_kit.experiments.figures.common.settings import SETTINGS, helix_simulation, joined_requests, load_own_plans
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.registry import Context


def test_own_plans_have_the_placement_and_the_flow_of_the_table():
    table = load("own-plans", FIGURES)
    for (setup, model), setting in SETTINGS.items():
        plans = load_own_plans(setting, Context(folder=FIGURES))
        assert set(plans) == {"flow", "served"}
        for objective, plan in plans.items():
            rows = table[(table["setup"] == setup) & (table["model"] == model) & (table["objective"] == objective)]
            assert plan.placement == {r.node: (r.start, r.end) for r in rows.itertuples()}
            assert plan.max_flow.tokens_per_s == pytest.approx(rows["flow_tokens_per_s"].iloc[0], rel=1e-4)


def test_requests_of_subclusters_are_joined_by_arrival_and_none_is_lost():
    subclusters = published_run("single", "llama-30b", "helix", "online").subclusters
    joined = joined_requests(subclusters)
    assert len(joined) == sum(len(s.requests()) for s in subclusters)
    arrivals = [r.arrival_s for r in joined]
    assert arrivals == sorted(arrivals)
    assert joined_requests(subclusters[:1]) is subclusters[0].requests()


def test_our_plans_are_simulated_in_the_published_window():
    run = published_run("geo", "llama2-70b", "helix", "offline")
    simulation = helix_simulation(run.plans()[0], "offline", joined_requests(run.subclusters), seed=3)
    assert (simulation.warmup_s, simulation.duration_s, simulation.seed) == (60.0, 600.0, 3)
    assert simulation.execution == "layerwise" and simulation.policy == "helix"
