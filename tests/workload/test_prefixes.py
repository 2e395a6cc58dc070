"""Shared content: files, traces, and the keys of blocks."""

from __future__ import annotations

import json

import pytest

from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.workload.named import make_workload
from helix_kit.workload.prefixes import block_keys, draw_content, parse_segments
from helix_kit.workload.request import Request
from helix_kit.workload.workload import Workload


def test_keys_are_equal_as_far_as_the_text_is():
    """Two prompts have as many equal keys as they have equal blocks from the start, whatever their segments are."""
    prompts = [
        ((1, 10), (2, 20)),
        ((1, 10), (2, 9), (3, 11)),
        ((1, 10), (2, 25)),
        ((9, 1), (1, 10), (2, 20)),
        ((1, 30),),
    ]
    requests = [Request(i, 0.0, sum(n for _, n in p), 1, prefix=p) for i, p in enumerate(prompts)]
    for size in (1, 3, 4, 7, 16):
        keys = block_keys(requests, size)
        texts = [[(key, i) for key, n in p for i in range(n)] for p in prompts]
        rows = [keys.keys[f : f + n].tolist() for f, n in zip(keys.first, keys.blocks, strict=True)]
        for a, row_a in enumerate(rows):
            assert len(row_a) == len(texts[a]) // size
            for b, row_b in enumerate(rows):
                for i in range(min(len(row_a), len(row_b))):
                    assert (row_a[i] == row_b[i]) == (texts[a][: size * (i + 1)] == texts[b][: size * (i + 1)])


def test_an_answer_counts_where_the_next_turn_repeats_it():
    first = Request(0, 0.0, 8, 8, prefix=((1, 8),), answer=2)
    second = Request(1, 9.0, 20, 8, prefix=((1, 8), (2, 8), (3, 4)))
    keys = block_keys([first, second], 4)
    assert keys.keys.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_mooncake_hashes_stand_for_512_tokens(tmp_path):
    rows = [
        {"timestamp": 1000 * i, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3 + i]} for i in (0, 1)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    workload = Workload.from_trace(tmp_path / "m.jsonl")
    assert [r.prefix for r in workload] == [((1, 512), (2, 512), (3, 76)), ((1, 512), (2, 512), (4, 76))]
    assert workload.scaled(2.0)[1].prefix == workload[1].prefix


@pytest.mark.parametrize("text", ["3", "a:4", "3:0", "3:400"])
def test_wrong_segments_are_refused_with_their_place(text):
    with pytest.raises(InputError, match="file:7: prefix"):
        parse_segments(text, 100, "file:7")


def test_a_content_is_the_same_tokens_at_every_length():
    long = draw_content(3, 8, 1000, 90)
    assert draw_content(3, 8, 257, 90) == long[:257] and set(long) <= set(range(90))
    assert draw_content(3, 9, 1000, 90) != long != draw_content(4, 8, 1000, 90)


@pytest.mark.parametrize("name", ["shared-prompts", "conversations"])
def test_workloads_that_share_are_named_on_the_command_line(name):
    problem = Problem.of(Cluster.preset("laptop"), Model.preset("SmolLM2-135M"))
    plan = Plan.from_placement(problem, {problem.cluster.nodes[0].name: (0, 15)}, method="hand")
    load = make_workload(name, plan, rate_per_s=2.0, duration_s=200.0)
    assert 300 < len(load) < 520 and all(request.prefix for request in load)
    assert make_workload(name, plan, mode="offline", rate_per_s=2.0, duration_s=20.0).duration_s == 0
