"""Pipelines, longest paths and short links, against every path listed by brute force."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_kit as hk
from helix_kit.cluster import COORDINATOR
from helix_kit.flow import build_flow_graph, decompose, longest_path, max_flow, pipeline_of, short_path_links

LAYERS = 8
MODEL = hk.Model.preset("llama2-70b").model_copy(update={"num_layers": LAYERS})
CLUSTER = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})


def paths_along(links):
    """Every path from the coordinator back to it."""
    found, stack = [], [[COORDINATOR, b] for a, b in links if a == COORDINATOR]
    while stack:
        path = stack.pop()
        if path[-1] == COORDINATOR:
            found.append(path[1:-1])
        else:
            stack += [[*path, b] for a, b in links if a == path[-1]]
    return found


@st.composite
def placements(draw):
    spans = {}
    for i in range(6):
        start = draw(st.integers(0, LAYERS - 1))
        spans[f"L4-{i}"] = (start, draw(st.integers(start + 1, LAYERS)))
    return spans


def flow_of(spans, partial=True):
    speed = {n: 100.0 + 7 * i for i, n in enumerate(spans)}
    return max_flow(build_flow_graph(CLUSTER, MODEL, spans, speed, partial_inference=partial))


@settings(max_examples=60)
@given(placements(), st.booleans())
def test_pipelines_add_up_to_the_flow(spans, partial):
    flow = flow_of(spans, partial)
    pipelines = decompose(flow, spans)
    assert sum(rate for _, rate in pipelines) == pytest.approx(flow.tokens_per_s)
    assert [r for _, r in pipelines] == sorted((r for _, r in pipelines), reverse=True)
    used = Counter()
    for pipeline, rate in pipelines:
        ends = [0, *(stage.end for stage in pipeline)]
        assert [stage.start for stage in pipeline] == ends[:-1] and ends[-1] == LAYERS
        assert all(spans[s.node][0] <= s.start < s.end == spans[s.node][1] for s in pipeline)
        names = [COORDINATOR, *(stage.node for stage in pipeline), COORDINATOR]
        for link in pairwise(names):
            used[link] += rate
    assert used == pytest.approx(flow.edges)


@settings(max_examples=60)
@given(placements())
def test_longest_path_is_that_of_every_path_listed(spans):
    flow = flow_of(spans)
    assert longest_path(flow, spans) == max((len(path) for path in paths_along(flow.edges)), default=0)


@settings(max_examples=60)
@given(placements(), st.integers(1, 6), st.booleans())
def test_short_links_allow_only_short_paths(spans, cap, partial):
    graph = build_flow_graph(CLUSTER, MODEL, spans, dict.fromkeys(spans, 1.0), partial_inference=partial)
    every = {edge for _, _, edge in graph.edges(data="edge") if edge[0] != edge[1]}
    shortest = min((len(path) for path in paths_along(every)), default=None)
    links = short_path_links(spans, LAYERS, cap, partial_inference=partial)
    if shortest is None or shortest > cap:
        assert links is None
        return
    lengths = [len(path) for path in paths_along(links)]
    assert links <= every and min(lengths) == shortest and max(lengths) <= cap


def test_stages_run_what_was_not_run_before():
    stages = pipeline_of(["a", "b", "c"], {"a": (0, 5), "b": (2, 6), "c": (6, 8)})
    assert [tuple(s) for s in stages] == [("a", 0, 5), ("b", 5, 6), ("c", 6, 8)]
