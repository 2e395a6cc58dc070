"""Pipelines of machines on offer: every multiset that holds the model, with the best split of its layers."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import pytest

from helix_kit import Model
from helix_kit.fleets.offers import offers_of
from helix_kit.fleets.patterns import Pattern, Setting, patterns_of
from helix_kit.profiles import Curve, Profile, machine_tables
from helix_kit.typical_request import MeanLengths

LENGTHS = MeanLengths(100, 50)


def profile(kind: str, ms: float, max_layers: int, layers: int) -> Profile:
    """Every layer takes so many milliseconds for any step; the machine holds at most `max_layers` of 6 layers."""
    flat = Curve(x=(0, 1, 600), y=(0, ms, ms))
    return Profile(kind=kind, model="six", source="test", prefill_ms_per_layer=flat, decode_ms_per_layer=flat,
                   kv_capacity_layer_tokens=(60_000,) * max_layers, prefill_max_requests=(8,) * max_layers,
                   decode_max_requests=(64,) * max_layers)  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    model = Model(name="six", num_layers=6, hidden_size=64, num_heads=4, num_kv_heads=4, intermediate_size=128,
                  vocab_size=100)  # fmt: skip
    profiles = {"L4": profile("L4", 2.0, 3, 6), "T4": profile("T4", 5.0, 2, 6)}
    return Setting(offers_of(["L4", "T4"], stock={"L4": 2}), model, profiles, LENGTHS)


def test_every_multiset_that_holds_the_model_once(setting):
    found = [tuple(sorted(kind for kind, _ in p.stages)) for p in patterns_of(setting, max_stages=4)]
    holds = {"L4": 3, "T4": 2}
    wanted = [
        kinds
        for n in range(1, 5)
        for kinds in combinations_with_replacement(("L4", "T4"), n)
        if sum(holds[kind] for kind in kinds) >= 6 and kinds.count("L4") <= 2
    ]
    assert sorted(found) == sorted(wanted) and len(set(found)) == len(found)


def test_the_split_has_the_largest_flow(setting):
    tables = machine_tables(setting.model, setting.profiles, LENGTHS)
    for pattern in patterns_of(setting, max_stages=4):
        assert sum(layers for _, layers in pattern.stages) == 6
        flow = min(tables[kind][layers - 1] for kind, layers in pattern.stages)
        kinds = [kind for kind, _ in pattern.stages]
        best = max(
            min(tables[kind][k - 1] for kind, k in zip(kinds, sizes))
            for sizes in product(*(range(1, len(tables[kind]) + 1) for kind in kinds))
            if sum(sizes) == 6
        )
        assert flow == pytest.approx(best)
        price = {"L4": setting.offers[0].usd_per_hour, "T4": setting.offers[1].usd_per_hour}
        assert pattern.usd_per_hour == pytest.approx(sum(price[kind] for kind in kinds))


def test_the_estimate_of_two_machines_by_hand(setting):
    # A step of a layer takes 2 ms whatever its batch. 60,000 layer-tokens hold 133 requests of 150 tokens with 3
    # layers; at most 64 decode together. A prompt of 100 tokens shares a step of 512: 2 x 100 / 512 ms a layer.
    two = next(p for p in patterns_of(setting) if p.text == "L4[3] + L4[3]")
    assert two.estimate_per_s == pytest.approx(1000 / (3 * (2 * 100 / 512 + 49 * 2 / 64)), rel=1e-6)


def test_nothing_holds_the_model(setting):
    small = Setting([setting.offers[1]], setting.model, setting.profiles, LENGTHS)
    assert patterns_of(small, max_stages=2) == []
    assert [p.text for p in patterns_of(small, max_stages=3)] == ["T4[2] + T4[2] + T4[2]"]


def test_many_machines_alike_are_counted():
    pattern = Pattern((("L4", 3), *[("L4", 2)] * 63, ("T4", 1), ("T4", 1)), usd_per_hour=1.0, estimate_per_s=1.0)
    assert pattern.text == "L4[3] + 63 x L4[2] + T4[1] + T4[1]"
