"""T(k) of a machine by itself: by hand, the same in any company, and monotone in memory, links and machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kit.cluster import Cluster, Node
from helix_kit.model import Model
from helix_kit.placement.bounds import spread_bound
from helix_kit.placement.groups import groups_of
from helix_kit.placement.problem import Problem
from helix_kit.profiles import Curve, EngineLimits, Profile, estimate, machine_tables, machine_tokens_per_s
from helix_kit.profiles.machine_speed import ms_per_request
from helix_kit.typical_request import TRACE_LENGTHS, MeanLengths

MODEL = Model(
    name="small", num_layers=12, hidden_size=4096, num_heads=32, num_kv_heads=8, intermediate_size=11008,
    vocab_size=32000,
)  # fmt: skip
CARDS = ("T4", "V100-16G", "L4", "A10G", "A100-40G", "H100-80G")


def machine(kv_per_layer: int, decode: Curve | None = None) -> Profile:
    """A machine whose steps take 10 ms a layer, whatever is in them."""
    flat = Curve(x=(0, 1, 10_000), y=(0, 10.0, 10.0))
    return Profile(
        kind="X", model="small", source="by hand", prefill_ms_per_layer=flat, decode_ms_per_layer=decode or flat,
        kv_capacity_layer_tokens=tuple(kv_per_layer * k for k in range(1, 13)), prefill_max_requests=(4,) * 12,
        decode_max_requests=(1000,) * 12,
    )  # fmt: skip


def serve_one_by_one(kv_per_layer: int, k: int, lengths: MeanLengths) -> float:
    """Tokens/s of a machine alone with layers of 10 ms, counted step by step over the lives of its requests.

    Every pass of a request through all layers takes 12 turns of one layer, k of them here. A turn serves the requests
    whose turn it is: those that live, half of those that fit, spread evenly over the 12 layers.
    """
    living = kv_per_layer / lengths.tokens / 2
    passes = -(-lengths.input_tokens // 256) + lengths.output_tokens - 1
    here = living * k / 12
    seconds = 0.0
    for turn in range(int(passes)):
        is_prompt = turn < passes - (lengths.output_tokens - 1)
        seconds += k * 0.010 / (1 if is_prompt else here)
    return lengths.tokens / seconds


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("lengths", [MeanLengths(100, 60), MeanLengths(1000, 20)])
def test_agrees_with_a_count_of_steps(k, lengths):
    expected = serve_one_by_one(60_000, k, lengths)
    assert machine_tokens_per_s(machine(60_000), (3, 3 + k), 12, lengths) == pytest.approx(expected)


def test_a_machine_without_room_for_one_request_serves_nothing():
    long = MeanLengths(5000, 100)
    assert machine_tokens_per_s(machine(5000), (0, 2), 12, long) == 0
    assert machine_tokens_per_s(machine(5100), (0, 2), 12, long) > 0


def test_an_answer_of_one_token_needs_no_decode():
    slow = Curve(x=(0, 1, 100), y=(0, 1e6, 1e6))
    only_prompts = machine_tokens_per_s(machine(100_000, slow), (0, 1), 12, MeanLengths(256, 1))
    assert only_prompts == pytest.approx(257 / 0.010)


def test_the_engine_limits_the_batch():
    lengths = MeanLengths(10, 1000)
    few = machine_tokens_per_s(machine(10**7), (0, 6), 12, lengths, EngineLimits(max_sequences=4))
    many = machine_tokens_per_s(machine(10**7), (0, 6), 12, lengths, EngineLimits(max_sequences=64))
    assert 10 < many / few < 16.1


@given(st.lists(st.floats(0.1, 50), min_size=4, max_size=4), st.floats(0.05, 90), st.floats(1.0, 4.0))
def test_a_larger_batch_is_never_slower_even_with_a_dent_in_the_table(times, batch, more):
    curve = Curve(x=(0, 1, 8, 32, 100), y=(0, *times))
    assert ms_per_request(curve, batch * more) <= ms_per_request(curve, batch) * (1 + 1e-12)


@given(st.sampled_from(CARDS), st.integers(1, 12), st.floats(0.5, 0.9), st.floats(1.0, 1.1))
@settings(max_examples=60, deadline=None)
def test_more_memory_never_slows_a_machine(card, k, share, more):
    node = Node(name="n", gpu=card)
    little, much = (estimate(node, MODEL, memory_share=s) for s in (share, share * more))
    assert much.max_layers >= little.max_layers
    if k <= little.max_layers:
        small, large = (machine_tokens_per_s(p, (0, k), 12) for p in (little, much))
        assert large >= small * (1 - 1e-12)


def cluster_of(counts: dict[str, int], *, gbps: float = 10.0, **rules: str) -> Cluster:
    """Machines of these cards in one region."""
    return Cluster.model_validate(
        {
            "name": "any",
            "nodes": [{"gpu": card, "count": n} for card, n in counts.items() if n],
            "network": {"within_region": {"bandwidth_gbps": gbps, "latency_ms": 1}},
            **rules,
        }
    )


counts = st.fixed_dictionaries({card: st.integers(1, 3) for card in ("A100-40G", "L4", "T4")})


@given(counts, st.dictionaries(st.sampled_from(CARDS), st.integers(1, 3)), st.data())
@settings(max_examples=40, deadline=None)
def test_more_machines_and_links_lower_neither_bound_nor_value(few, extra, data):
    more = {card: few.get(card, 0) + extra.get(card, 0) for card in dict.fromkeys([*few, *extra])}
    small, large = Problem.of(cluster_of(few), MODEL), Problem.of(cluster_of(more, gbps=20.0), MODEL)
    assert large.compute_bound >= small.compute_bound * (1 - 1e-12)
    assert spread_bound(groups_of(large), 12) >= spread_bound(groups_of(small), 12) * (1 - 1e-6)
    spans = {}
    for node in small.cluster.nodes:
        k = data.draw(st.integers(1, small.max_layers(node.name)))
        start = data.draw(st.integers(0, 12 - k))
        spans[node.name] = (start, start + k)
    assert large.max_flow(spans).tokens_per_s >= small.max_flow(spans).tokens_per_s


def test_a_machine_is_as_fast_in_any_company_unless_its_cluster_asks_for_the_published_rule():
    alone, beside = ({"H100-80G": 2}, {"H100-80G": 2, "L4": 12})
    model = Model.preset("llama3.1-70b")
    own = [Problem.of(cluster_of(c), model).throughput("H100-80G-0", 10) for c in (alone, beside)]
    published = [Problem.of(cluster_of(c, throughput="published"), model).throughput("H100-80G-0", 10)
                 for c in (alone, beside)]  # fmt: skip
    assert own[0] == own[1]
    assert published[0] > 1.2 * published[1]


def test_longer_requests_are_served_more_slowly():
    profiles = {"A100-40G": estimate(Node(name="n", gpu="A100-40G"), MODEL)}
    usual = machine_tables(MODEL, profiles, TRACE_LENGTHS)["A100-40G"]
    chatty = machine_tables(MODEL, profiles, replace(TRACE_LENGTHS, output_tokens=2000.0))["A100-40G"]
    assert all(a > b for a, b in zip(usual, chatty, strict=True))
