"""Fields that a config.json leaves out mean what transformers' classes take for them."""

from __future__ import annotations

import json

import pytest
from small_decoders import KINDS, NOT_BUILT, counted_layers, fewest_fields, windows_of

from helix_kit.hf_config import EXPERT_ALIASES, EXPERT_FAMILIES, FAMILIES, TEXT_MODELS
from helix_kit.hf_config.left_out import LEFT_OUT
from helix_kit.model import Model

# Not fields of transformers' classes: their code has these values in place.
FIXED = {
    ("gemma4_text", "global_head_dim"), ("glm4_moe_lite", "first_k_dense_replace"), ("glm4v_text", "attention_bias"),
    ("glm4v_text", "head_dim"), ("hy_v3", "first_k_dense_replace"),
}  # fmt: skip


def read(tmp_path, fields):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    return Model.from_hf(tmp_path)


def test_only_described_families_are_listed():
    assert set(LEFT_OUT) <= {*FAMILIES, *EXPERT_FAMILIES, *TEXT_MODELS, *EXPERT_ALIASES}


@pytest.mark.parametrize("kind", sorted(set(LEFT_OUT) - NOT_BUILT))
def test_the_table_has_the_defaults_of_transformers_classes(kind):
    from transformers import CONFIG_MAPPING

    for field, value in LEFT_OUT[kind].items():
        if (kind, field) not in FIXED:
            assert getattr(CONFIG_MAPPING[kind], field) == value, field


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_sizes_alone_is_read_as_transformers_reads_it(kind, tmp_path):
    from transformers import AutoConfig

    fields = fewest_fields(kind, layers=8)
    config = AutoConfig.for_model(kind, **fields)
    model = read(tmp_path, {"model_type": kind, **fields})
    kinds = [model.kind_of(layer) for layer in range(8)]
    assert [each.all_params if each else round(model.layer_params) for each in kinds] == counted_layers(config)
    assert [_attention(each) for each in kinds] == [_as_ours(each, model) for each in windows_of(config)]


@pytest.mark.parametrize("kind", [k for k in KINDS if LEFT_OUT.get(k, {}).get("max_window_layers")])
def test_windows_that_are_switched_on_begin_where_transformers_begins_them(kind, tmp_path):
    from transformers import AutoConfig

    fields = fewest_fields(kind, layers=90) | {"use_sliding_window": True}
    config = AutoConfig.for_model(kind, **fields)
    model = read(tmp_path, {"model_type": kind, **fields})
    assert [_attention(model.kind_of(layer)) for layer in range(90)] == windows_of(config)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_older_files_of_multimodal_models_have_the_decoder_beside_the_rest(kind, tmp_path):
    """Qwen2-VL-7B as published: 28 layers like those of Qwen2-7B."""
    sizes = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768, "use_sliding_window": False,
        "sliding_window": 32768, "max_window_layers": 28, "torch_dtype": "bfloat16",
    }  # fmt: skip
    whole = read(tmp_path, {"model_type": kind, **sizes, "vision_config": {"depth": 32}})
    assert whole.layers_params == read(tmp_path, {"model_type": "qwen2", **sizes}).layers_params
    assert whole.layers_params == pytest.approx(6.525e9, rel=1e-3)  # 7.6 B with two tables of 545 M


@pytest.mark.parametrize("kind", ["ernie4_5", "seed_oss"])
def test_a_null_size_of_heads_is_a_share_of_the_hidden_size(kind, tmp_path):
    fields = fewest_fields(kind, layers=2)
    assert read(tmp_path, {"model_type": kind, **fields}).head_dim == 128
    assert read(tmp_path, {"model_type": kind, **fields, "head_dim": None}).head_dim == 16


def test_a_nested_config_has_transformers_numbers_of_heads_and_experts(tmp_path):
    """A multimodal model may be saved with those fields of its decoder that differ from the defaults."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 16, "vocab_size": 300}
    mistral = {"model_type": "mistral", "intermediate_size": 96, **sizes}
    assert read(tmp_path, {"model_type": "mistral3", "text_config": mistral}).num_kv_heads == 8
    mixture = {"model_type": "qwen3_vl_moe_text", "num_key_value_heads": 16, **sizes}
    experts = read(tmp_path, {"model_type": "qwen3_vl_moe", "text_config": mixture}).kind_of(0).experts
    assert (experts.count, experts.active, experts.width) == (60, 4, 1408)


def _attention(kind):
    return "full" if kind is None else kind.attention


def _as_ours(attention, model):
    """Layers with latent attention are full ones to transformers."""
    return "latent" if model.layer_kinds and model.layer_kinds[0].attention == "latent" else attention
