"""Kinds of layers: experts met by a batch against drawing them, windows, and formats of weights."""

from __future__ import annotations

import random

import pytest

from helix_kit.layers import Experts, LayerKind
from helix_kit.model import Model


@pytest.mark.parametrize(("count", "active", "tokens"), [(8, 2, 1), (8, 2, 5), (32, 4, 20), (16, 16, 3)])
def test_distinct_experts_are_as_many_as_drawing_them_gives(count, active, tokens):
    rng = random.Random(1)
    drawn = [len({e for _ in range(tokens) for e in rng.sample(range(count), active)}) for _ in range(4000)]
    experts = Experts(count=count, active=active, width=1, params=1, weight_bytes=1)
    assert experts.distinct(tokens) == pytest.approx(sum(drawn) / len(drawn), rel=0.01)


def test_a_skew_means_fewer_experts_and_one_token_still_takes_its_share():
    experts = Experts(count=64, active=4, width=1, params=1, weight_bytes=1)
    for skew in (0.5, 1.0, 2.0):
        assert experts.distinct(1, skew) == pytest.approx(4)
        assert 4 < experts.distinct(30, skew) < experts.distinct(30)
    assert experts.distinct(30, 2.0) < experts.distinct(30, 0.5)
    assert experts.distinct(1e9) == pytest.approx(64)


def test_a_step_reads_the_experts_that_it_meets():
    experts = Experts(count=8, active=2, width=1, params=100, weight_bytes=200)
    kind = LayerKind(name="k", kv_bytes_per_token=4, params=50, weight_bytes=100, experts=experts)
    assert (kind.all_params, kind.active_params, kind.all_bytes) == (850, 250, 1700)
    assert kind.read_bytes(1) == pytest.approx(500) and kind.read_bytes(1e9) == pytest.approx(1700)


PUBLISHED = {
    "deepseek-v3": (671.0, 37.6), "mixtral-8x7b": (46.7, 12.9), "qwen3-30b-a3b": (30.5, 3.3),
    "gpt-oss-20b": (20.9, 4.2),
    "qwen3-235b-a22b": (235.1, 22.2), "gpt-oss-120b": (116.8, 5.7), "llama3.1-8b": (8.03, 8.03),
    "llama3.1-405b": (405.9, 405.9), "qwen3-8b": (8.19, 8.19), "gemma-3-27b": (27.0, 27.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_parameters_that_their_cards_say(name):
    """Billions of parameters, in total and for each token, with embedding and output projection in both."""
    model, (total, active) = Model.preset(name), PUBLISHED[name]
    tables = model.vocab_size * model.hidden_size * (1 if model.tied_embeddings else 2)
    assert (model.layers_params + tables) / 1e9 == pytest.approx(total, rel=0.005)
    assert (model.active_params + tables) / 1e9 == pytest.approx(active, rel=0.02)
    assert model.layers_gb(0, model.num_layers) == pytest.approx(model.num_layers * model.layer_gb)


def test_a_description_with_kinds_is_read_again_as_it_was_written():
    for name in ("deepseek-v3", "qwen3-30b-a3b-int4", "llama2-70b"):
        model = Model.preset(name)
        assert Model.model_validate_json(model.model_dump_json()) == model
    assert "layer_kinds" not in Model.preset("llama2-70b").model_dump()
